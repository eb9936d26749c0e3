// engine/kv/kv_layout.h -- what a chain's keys and values are written in and read by: the formats
// of its pages, and for coded ones the calibration and the exact first tokens. Plain data; the
// calibration must outlive it.
#pragma once

#include <memory>

#include "engine/calibration/kv_calibration.h"
#include "engine/kv/sink_page.h"
#include "kernels/kv_format.h"

namespace corpusd {

struct KvLayout {
  KvFormat blocks;                             // of the corpus's blocks
  KvFormat own;                                // of a question's own tokens: bf16
  const KvCalibration* calibration = nullptr;  // null: blocks are not coded
  std::shared_ptr<const SinkPage> sinks;       // null: blocks are not coded

  // The same for those who compute blocks: their own pages are blocks.
  KvLayout OfBlocks() const { return {blocks, blocks, calibration, sinks}; }
};

}  // namespace corpusd
