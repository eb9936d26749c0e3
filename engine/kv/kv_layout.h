// engine/kv/kv_layout.h -- what a chain's keys and values are written in and read by: the formats
// of its pages, and for coded ones the calibration and the exact first tokens. Plain data; the
// calibration must outlive it.
#pragma once

#include <memory>

#include "engine/calibration/kv_calibration.h"
#include "engine/kv/layer_parts.h"
#include "engine/kv/sink_page.h"
#include "kernels/kv_format.h"

namespace corpusd {

struct KvLayout {
  KvFormat blocks;                             // of the corpus's blocks
  KvFormat own;                                // of a question's own tokens: bf16
  const KvCalibration* calibration = nullptr;  // null: blocks are not coded
  std::shared_ptr<const SinkPage> sinks;       // null: blocks are not coded
  // How layers are kept apart; null: all together. The formats say all layers.
  std::shared_ptr<const LayerParts> parts = nullptr;

  // The same for those who compute blocks: their own pages are blocks.
  KvLayout OfBlocks() const { return {blocks, blocks, calibration, sinks, parts}; }
  size_t part_count() const { return parts == nullptr ? 1 : parts->parts.size(); }
  // A part's share of `format`.
  KvFormat OfPart(const KvFormat& format, size_t part) const {
    return parts == nullptr ? format : PartFormat(format, *parts, part);
  }
};

}  // namespace corpusd
