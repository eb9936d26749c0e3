// Names, sizes and places of KV formats.
#include "kernels/kv_format.h"

#include <gtest/gtest.h>

#include "kernels/coded_tile.h"

namespace corpusd {
namespace {

constexpr uint32_t kLayers = 30;

KvFormat Format(const std::string& name, uint32_t layers = kLayers) {
  KvFormat format{.layers = layers, .kv_heads = 3, .head_dim = 64};
  const std::string wrong = ParseKvFormat(name, &format);
  EXPECT_EQ(wrong, "") << name;
  return format;
}

TEST(KvFormatName, NamesOfCodedFormatsReadBack) {
  for (const std::string name : {"bf16", "int8", "cq8", "cq4", "cq3", "cq2", "cq4k2v", "cq8k3v"}) {
    KvFormat format;
    ASSERT_TRUE(ParseKvFormatName(name, &format.key_codec, &format.value_codec)) << name;
    EXPECT_EQ(KvFormatName(format), name);
  }
  KvFormat format;
  for (const std::string name : {"cq5", "cq4k5v", "cq4k2", "cq4k2w", "xq4k2v", "", "cq4v2k"}) {
    EXPECT_FALSE(ParseKvFormatName(name, &format.key_codec, &format.value_codec)) << name;
  }
  ASSERT_TRUE(ParseKvFormatName("cq4k2v", &format.key_codec, &format.value_codec));
  EXPECT_EQ(format.key_codec, KvCodec::kCq4);
  EXPECT_EQ(format.value_codec, KvCodec::kCq2);
  format.head_dim = 64;
  EXPECT_EQ(format.KeyTileBytes(0), 4288u);
  EXPECT_EQ(format.ValueTileBytes(0), 2240u);
}

TEST(KvFormatName, LayersMayHaveCodecsOfTheirOwn) {
  const KvFormat format = Format("cq4+0-1:cq8+29:cq8k3v");
  EXPECT_EQ(KvFormatName(format), "cq4+0-1:cq8+29:cq8k3v");
  EXPECT_EQ(format.CodecsOf(1), (LayerCodecs{KvCodec::kCq8, KvCodec::kCq8}));
  EXPECT_EQ(format.CodecsOf(2), (LayerCodecs{KvCodec::kCq4, KvCodec::kCq4}));
  EXPECT_EQ(format.CodecsOf(29), (LayerCodecs{KvCodec::kCq8, KvCodec::kCq3}));
  EXPECT_TRUE(IsCoded(format));
  EXPECT_EQ(format.Canonical(),
            "kv1;k=cq4;v=cq4;layers=30;heads=3;dim=64;tokens=128;but=0-1:cq8+29:cq8k3v");
  EXPECT_EQ(format.OfLayer(29), Format("cq8k3v", 1));
}

TEST(KvFormatName, EqualFormatsHaveOneName) {
  EXPECT_EQ(Format("cq4+3:cq4"), Format("cq4"));
  EXPECT_EQ(Format("cq4+0-29:cq2"), Format("cq2"));
  EXPECT_EQ(Format("cq8+2-29:cq4"), Format("cq4+0:cq8+1:cq8"));
  EXPECT_EQ(KvFormatName(Format("cq8+2-29:cq4")), "cq4+0-1:cq8");
  EXPECT_EQ(KvFormatName(Format("cq4+29:cq8+0:cq8")), "cq4+0:cq8+29:cq8");
  EXPECT_EQ(KvFormatName(Format("cq4+0-14:cq8")), "cq8+15-29:cq4") << "of as many the first";
  EXPECT_NE(Format("cq4+0:cq8"), Format("cq4+1:cq8"));
  EXPECT_EQ(Format("cq4").Canonical(), "kv1;k=cq4;v=cq4;layers=30;heads=3;dim=64;tokens=128");
}

TEST(KvFormatName, WhatIsWrongIsSaidAndNothingIsSet) {
  const KvFormat before = Format("cq3");
  const std::pair<const char*, const char*> cases[] = {
      {"cq5", "is not known"},
      {"", "is not known"},
      {"+0:cq8", "is not known"},
      {"bf16+0:cq8", "only cq formats"},
      {"int8+0:int8", "only cq formats"},
      {"cq4+", "exception ''"},
      {"cq4+0", "exception '0'"},
      {"cq4+:cq8", "exception ':cq8'"},
      {"cq4+0:", "exception '0:'"},
      {"cq4+0:bf16", "exception '0:bf16'"},
      {"cq4+0:cq8+", "exception ''"},
      {"cq4++1:cq8", "exception ''"},
      {"cq4+a-b:cq8", "exception 'a-b:cq8'"},
      {"cq4+-1:cq8", "exception '-1:cq8'"},
      {"cq4+2-1:cq8", "exception '2-1:cq8'"},
      {"cq4+0-:cq8", "exception '0-:cq8'"},
      {"cq4+0 :cq8", "exception '0 :cq8'"},
      {"cq4+99999999999:cq8", "exception '99999999999:cq8'"},
      {"cq4+30:cq8", "stored layers are 0 to 29"},
      {"cq4+28-30:cq8", "stored layers are 0 to 29"},
      {"cq4+0-3:cq8+2:cq3", "says layer 2 twice"},
  };
  for (const auto& [name, wrong] : cases) {
    KvFormat format = before;
    EXPECT_NE(ParseKvFormat(name, &format).find(wrong), std::string::npos)
        << name << ": " << ParseKvFormat(name, &format);
    EXPECT_EQ(format, before) << name;
  }
}

TEST(KvFormat, LayersFollowEachOtherAndBlocksDivideIntoSections) {
  for (const std::string name : {"cq4", "cq4+0-1:cq8", "cq2+3:cq4k3v+29:cq8", "cq8k4v+5-9:cq3"}) {
    const KvFormat format = Format(name);
    uint64_t end = 0;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(format.LayerOffset(layer), end);
      EXPECT_EQ(format.KeyTileOffset(layer, 0), end);
      EXPECT_EQ(format.LayerBytes(layer), format.OfLayer(layer).BlockBytes());
      for (uint32_t head = 0; head < format.kv_heads; ++head) {
        EXPECT_EQ(format.KeyTileOffset(layer, head), end);
        end += format.KeyTileBytes(layer);
      }
      for (uint32_t head = 0; head < format.kv_heads; ++head) {
        EXPECT_EQ(format.ValueTileOffset(layer, head), end);
        end += format.ValueTileBytes(layer);
      }
      const uint64_t section = format.BlockBytes() / kLayers;
      EXPECT_GE((format.LastSectionOf(layer) + 1) * section, end) << name << " " << layer;
      EXPECT_LT(format.LastSectionOf(layer) * section, end) << name << " " << layer;
    }
    EXPECT_EQ(format.BlockBytes() % (uint64_t{kLayers} * kTileAlignment), 0u);
    EXPECT_GE(format.BlockBytes(), end);
    EXPECT_LT(format.BlockBytes() - end, uint64_t{kLayers} * kTileAlignment);
  }
  EXPECT_EQ(Format("cq4").LastSectionOf(17), 17u);
  // Two layers of twice the bytes at the front put each later layer two sections further back, all
  // sections being a little wider.
  EXPECT_EQ(Format("cq4+0-1:cq8").LastSectionOf(0), 1u);
  EXPECT_EQ(Format("cq4+0-1:cq8").LastSectionOf(29), 29u);
}

}  // namespace
}  // namespace corpusd
