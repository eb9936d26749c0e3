// engine/model/model_config.h -- the shape of a transformer, read and checked from a model file's
// metadata. Plain data.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/rope_table.h"
#include "store/base/result.h"

namespace corpusd {

class GgufFile;

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t feed_forward = 0;
  uint32_t vocabulary = 0;
  uint32_t context_tokens = 0;
  float norm_epsilon = 1e-5F;
  RopeConfig rope;

  // The same on every host; part of every chain root.
  std::string Canonical() const;
};

// Every number is checked against limits that keep later arithmetic and allocations sane.
Result<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace corpusd
