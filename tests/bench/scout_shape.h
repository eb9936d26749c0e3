// tests/bench/scout_shape.h -- the shape of Llama 4 Scout as a config.json has it, for benches with
// random weights. Plain data.
#pragma once

#include <nlohmann/json.hpp>

namespace corpusd {

// As published (reference: config.json of Llama-4-Scout-17B-16E), or a shape for a quick run.
inline nlohmann::json ScoutShape(bool smoke) {
  nlohmann::json c = {{"model_type", "llama4_text"},
                      {"hidden_size", 5120},
                      {"num_hidden_layers", 48},
                      {"num_attention_heads", 40},
                      {"num_key_value_heads", 8},
                      {"head_dim", 128},
                      {"intermediate_size", 8192},
                      {"intermediate_size_mlp", 16384},
                      {"num_local_experts", 16},
                      {"num_experts_per_tok", 1},
                      {"interleave_moe_layer_step", 1},
                      {"vocab_size", 202048},
                      {"max_position_embeddings", 10485760},
                      {"attention_chunk_size", 8192},
                      {"rms_norm_eps", 1e-5},
                      {"rope_theta", 500000.0},
                      {"use_qk_norm", true},
                      {"attn_temperature_tuning", true},
                      {"floor_scale", 8192},
                      {"attn_scale", 0.1},
                      {"tie_word_embeddings", false},
                      {"hidden_act", "silu"},
                      {"rope_scaling",
                       {{"rope_type", "llama3"},
                        {"factor", 16.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 1.0},
                        {"original_max_position_embeddings", 8192}}}};
  if (!smoke) return c;
  c.update({{"hidden_size", 128},
            {"num_hidden_layers", 4},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 64},
            {"intermediate_size", 128},
            {"intermediate_size_mlp", 128},
            {"num_local_experts", 4},
            {"vocab_size", 512},
            {"attention_chunk_size", 1024}});
  return c;
}

}  // namespace corpusd
