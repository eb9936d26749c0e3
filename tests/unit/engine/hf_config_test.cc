// config.json of Hugging Face folders: spellings old and new, defaults, and what is refused.
#include "engine/model/hf_config.h"

#include <gtest/gtest.h>

namespace corpusd {
namespace {

nlohmann::json Llama() {
  return {
      {"model_type", "llama"},      {"num_hidden_layers", 2},   {"hidden_size", 64},
      {"vocab_size", 100},          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
      {"intermediate_size", 128},   {"rms_norm_eps", 1e-5},     {"max_position_embeddings", 4096},
      {"tie_word_embeddings", true}};
}

nlohmann::json Llama4() {
  return {{"model_type", "llama4_text"}, {"num_hidden_layers", 8},   {"hidden_size", 64},
          {"vocab_size", 100},           {"num_attention_heads", 4}, {"num_key_value_heads", 2}};
}

void ExpectRefused(const nlohmann::json& config, const std::string& words,
                   StatusCode code = StatusCode::kInvalidArgument) {
  const auto read = ReadHfConfig(config, "c.json");
  ASSERT_FALSE(read.ok()) << "expected: " << words;
  EXPECT_EQ(read.status().code(), code) << read.status().ToString();
  EXPECT_TRUE(read.status().message().starts_with("c.json")) << read.status().message();
  EXPECT_NE(read.status().message().find(words), std::string::npos) << read.status().message();
}

TEST(HfConfig, AllSpellingsOfRopeMeanTheSame) {
  nlohmann::json old_style = Llama();
  old_style["rope_theta"] = 500000.0;
  old_style["rope_scaling"] = {{"rope_type", "llama3"},
                               {"factor", 8.0},
                               {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0},
                               {"original_max_position_embeddings", 2048}};
  nlohmann::json new_style = Llama();
  new_style["rope_parameters"] = old_style["rope_scaling"];
  new_style["rope_parameters"]["rope_theta"] = 500000.0;
  const auto a = ReadHfConfig(old_style, "c.json");
  const auto b = ReadHfConfig(new_style, "c.json");
  ASSERT_TRUE(a.ok() && b.ok()) << a.status().ToString() << b.status().ToString();
  EXPECT_EQ(a->model.Canonical(), b->model.Canonical());
  EXPECT_EQ(a->model.rope.frequency_factors.size(), 8U);
  EXPECT_EQ(a->model.rope.frequency_factors.front(), 1.0F);
  EXPECT_EQ(a->model.rope.frequency_factors.back(), 8.0F);
  EXPECT_TRUE(a->layout.tied_output);
  EXPECT_TRUE(a->model.IsPlain());
}

// Scout's own numbers: 29 of 64 pairs are slowed, by 16, and none is between.
TEST(HfConfig, FrequenciesOfScout) {
  const auto factors = Llama3FrequencyFactors(500000, 128, {16, 1, 1, 8192});
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 16.0F), 29);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 1.0F), 35);
}

TEST(HfConfig, DefaultsOfLlama4) {
  const auto read = ReadHfConfig(Llama4(), "c.json");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  const ModelConfig& c = read->model;
  EXPECT_EQ(c.head_dim, 128U);
  EXPECT_EQ(c.experts, 16U);
  EXPECT_EQ(c.experts_used, 1U);
  EXPECT_EQ(c.expert_feed_forward, 8192U);
  EXPECT_EQ(c.rope.base, 500000);
  EXPECT_EQ(c.head_norm, HeadNorm::kUnitOnRope);
  for (uint32_t i = 0; i < 8; ++i) {
    const LayerConfig& layer = c.layer_configs[i];
    EXPECT_EQ(layer.rope, i % 4 != 3) << i;
    EXPECT_EQ(layer.span, i % 4 != 3 ? AttentionSpan::kChunk : AttentionSpan::kAll) << i;
    EXPECT_EQ(layer.span_tokens, i % 4 != 3 ? 8192U : 0U) << i;
    EXPECT_EQ(layer.temperature, i % 4 == 3) << i;
    EXPECT_TRUE(layer.experts) << i;
  }
  EXPECT_FALSE(c.IsPlain());
  // Rotations reach no further than a chunk, however long the context is.
  EXPECT_EQ(c.RopePositions(), 8192U + 256U);
}

// Each switch is part of the identity of what is stored.
TEST(HfConfig, EverySwitchChangesTheIdentity) {
  const std::string base = ReadHfConfig(Llama4(), "c.json")->model.Canonical();
  const std::vector<std::pair<std::string, nlohmann::json>> switches = {
      {"attention_chunk_size", 4096},
      {"attention_chunk_size", nullptr},
      {"no_rope_layer_interval", 2},
      {"use_qk_norm", false},
      {"attn_temperature_tuning", false},
      {"floor_scale", 4096},
      {"attn_scale", 0.2},
      {"interleave_moe_layer_step", 2},
      {"moe_layers", nlohmann::json::array({1})},
      {"num_experts_per_tok", 2},
      {"num_local_experts", 8},
      {"intermediate_size", 64},
      {"intermediate_size_mlp", 64},
      {"attention_bias", true},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0}};
  for (const auto& [key, value] : switches) {
    nlohmann::json config = Llama4();
    config[key] = value;
    const auto read = ReadHfConfig(config, "c.json");
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_NE(read->model.Canonical(), base) << key << " " << value;
  }
}

TEST(HfConfig, WindowsAndRotationsOfGemma3InBothSpellings) {
  nlohmann::json old_style = Llama();
  old_style["model_type"] = "gemma3_text";
  old_style["num_hidden_layers"] = 7;
  old_style["sliding_window"] = 512;
  old_style["rope_local_base_freq"] = 10000.0;
  old_style["rope_theta"] = 1000000.0;
  old_style["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  const auto old_read = ReadHfConfig(old_style, "c.json");
  ASSERT_TRUE(old_read.ok()) << old_read.status().ToString();
  for (uint32_t i = 0; i < 7; ++i) {
    const LayerConfig& layer = old_read->model.layer_configs[i];
    EXPECT_EQ(layer.span, i == 5 ? AttentionSpan::kAll : AttentionSpan::kWindow) << i;
    EXPECT_EQ(layer.local_rope, i != 5) << i;
  }
  EXPECT_EQ(old_read->model.embedding_scale, 8.0F);
  nlohmann::json new_style = old_style;
  for (const char* const key : {"rope_local_base_freq", "rope_theta", "rope_scaling"}) {
    new_style.erase(key);
  }
  new_style["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1000000.0}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}};
  const auto new_read = ReadHfConfig(new_style, "c.json");
  ASSERT_TRUE(new_read.ok()) << new_read.status().ToString();
  EXPECT_EQ(old_read->model.Canonical(), new_read->model.Canonical());
}

TEST(HfConfig, WhatTheGraphLacksIsRefused) {
  const auto with = [](nlohmann::json config, const std::string& key, const nlohmann::json& value) {
    config[key] = value;
    return config;
  };
  const StatusCode unimplemented = StatusCode::kUnimplemented;
  ExpectRefused(with(Llama(), "model_type", "mamba"), "model type 'mamba'", unimplemented);
  ExpectRefused(with(Llama(), "model_type", 7), "'model_type' is 7");
  ExpectRefused(with(Llama(), "hidden_act", "relu"), "activation 'relu'", unimplemented);
  ExpectRefused(with(Llama(), "mlp_bias", true), "'mlp_bias'", unimplemented);
  ExpectRefused(with(Llama(), "quantization_config", {{"quant_method", "awq"}}), "quantized",
                unimplemented);
  ExpectRefused(with(Llama(), "rope_scaling", {{"type", "longrope"}}), "rope type 'longrope'",
                unimplemented);
  ExpectRefused(with(Llama4(), "layer_types",
                     nlohmann::json(std::vector<std::string>(8, "sliding_attention"))),
                "layer type 'sliding_attention'", unimplemented);
}

TEST(HfConfig, NumbersThatMakeNoSense) {
  const auto with = [](nlohmann::json config, const std::string& key, const nlohmann::json& value) {
    config[key] = value;
    return config;
  };
  for (const char* const key : {"num_hidden_layers", "hidden_size", "vocab_size",
                                "num_attention_heads", "intermediate_size"}) {
    for (const nlohmann::json& value :
         {nlohmann::json(0), nlohmann::json(-1), nlohmann::json(1.5), nlohmann::json("4"),
          nlohmann::json(1e30), nlohmann::json(nullptr), nlohmann::json(uint64_t{1} << 40)}) {
      ExpectRefused(with(Llama(), key, value), "'" + std::string(key) + "' is ");
    }
  }
  ExpectRefused(with(Llama(), "num_key_value_heads", 3), "cannot share");
  ExpectRefused(with(Llama(), "rope_theta", 0), "must be above 1");
  ExpectRefused(with(Llama(), "partial_rotary_factor", 2), "'partial_rotary_factor' is 2");
  ExpectRefused(with(Llama(), "rope_scaling", 3), "'rope_scaling' is 3, expected an object");
  ExpectRefused(with(Llama4(), "no_rope_layers", {1, 0}), "one number a layer");
  ExpectRefused(with(Llama4(), "no_rope_layers", {1, 0, 2, 1, 1, 1, 1, 1}), "'no_rope_layers' is");
  ExpectRefused(with(Llama4(), "moe_layers", {8}), "'moe_layers' is");
  ExpectRefused(with(Llama4(), "floor_scale", 0), "'floor_scale' is 0");
  ExpectRefused(with(Llama4(), "num_experts_per_tok", 17), "17 experts a token");
}

}  // namespace
}  // namespace corpusd
