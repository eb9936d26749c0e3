// engine/model/hf_config.h -- the shape of a transformer, read and checked from a config.json as
// Hugging Face's transformers writes it, old and new spellings. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/model/fp8_weights.h"
#include "engine/model/model_config.h"
#include "store/base/result.h"

namespace corpusd {

// What a folder's tensors look like, beside the shape.
struct HfLayout {
  std::string family;            // model_type of the text model: "llama", "llama4_text", ...
  bool tied_output = false;      // the output matrix is the embedding
  bool half_split_rope = false;  // RoPE turns pairs (j, j + half), not adjacent ones
  bool gains_from_one = false;   // norms store their gains less 1
  Fp8Scales fp8;                 // of matrices of 8-bit floats, if there are any
};

struct HfConfig {
  ModelConfig model;
  HfLayout layout;
};

// where: the file, for messages. kUnimplemented for a family, or a switch of one, that the graph
// does not have; kInvalidArgument for values that make no sense.
Result<HfConfig> ReadHfConfig(const nlohmann::json& config, const std::string& where);

}  // namespace corpusd
