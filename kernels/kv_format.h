// kernels/kv_format.h -- how the K and V of one block become bytes: codecs, tile layouts, sizes.
// Plain data and arithmetic: no I/O, no ownership, any thread. Layouts are specified in
// kernels/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

// How one tile (one block x one layer x one KV head x K or V) is coded. Values are persistent.
enum class KvCodec : uint8_t {
  kBf16 = 1,  // bfloat16, exact to 8 bits of mantissa
  kInt8 = 2,  // int8 codes, one float32 scale per token
  // Codes of so many bits in the coordinates of a KvBasis, one scale byte a token, one mean a dim
  // and block: coded_tile.h. They need a basis, and whole block slices when written.
  kCq8 = 3,
  kCq4 = 4,
  kCq3 = 5,
  kCq2 = 6,
};

// Bits of a code of a cq codec, 0 of the others.
constexpr uint32_t CodeBits(KvCodec codec) {
  switch (codec) {
    case KvCodec::kCq8:
      return 8;
    case KvCodec::kCq4:
      return 4;
    case KvCodec::kCq3:
      return 3;
    case KvCodec::kCq2:
      return 2;
    default:
      return 0;
  }
}
constexpr bool IsCoded(KvCodec codec) { return CodeBits(codec) != 0; }

inline constexpr uint32_t kBlockTokens = 128;
inline constexpr uint32_t kTileAlignment = 64;

// The codecs of one layer.
struct LayerCodecs {
  KvCodec key = KvCodec::kBf16;
  KvCodec value = KvCodec::kBf16;
  bool operator==(const LayerCodecs&) const = default;
};

// Everything that decides the bytes of a block. Two blocks with equal KvFormat have equal layout.
struct KvFormat {
  KvCodec key_codec = KvCodec::kBf16;
  KvCodec value_codec = KvCodec::kBf16;
  uint32_t layers = 0;  // stored layers
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;  // a multiple of 16, of the cq codecs of 64; at most 256
  uint32_t block_tokens = kBlockTokens;
  // Of every stored layer where they are not all alike, cq codecs only; else empty, and all layers
  // have key_codec and value_codec, which else are those of the most layers.
  std::vector<LayerCodecs> layer_codecs = {};

  LayerCodecs CodecsOf(uint32_t layer) const;
  // Bytes of one K or V tile, a multiple of kTileAlignment; content-independent.
  uint64_t KeyTileBytes(uint32_t layer) const;
  uint64_t ValueTileBytes(uint32_t layer) const;
  uint64_t LayerBytes(uint32_t layer) const;  // all K tiles of a layer, then all its V tiles
  uint64_t LayerOffset(uint32_t layer) const;
  // All layers; where they differ, padded so that it divides into `layers` equal sections.
  uint64_t BlockBytes() const;
  uint64_t KeyTileOffset(uint32_t layer, uint32_t kv_head) const;
  uint64_t ValueTileOffset(uint32_t layer, uint32_t kv_head) const;
  // The last of the block's `layers` equal sections that holds bytes of this layer: the layer's own
  // number where all are alike.
  uint32_t LastSectionOf(uint32_t layer) const;
  // A block of this layer alone.
  KvFormat OfLayer(uint32_t layer) const;
  // Sets the codecs of every layer. REQUIRES: as many as layers.
  void SetLayerCodecs(std::vector<LayerCodecs> codecs);
  // The same on every build and host, such as
  // "kv1;k=bf16;v=bf16;layers=30;heads=3;dim=64;tokens=128"; part of every chain root.
  std::string Canonical() const;
  bool operator==(const KvFormat&) const = default;
};

// Whether blocks need a basis: keys, values or both are in a cq codec.
inline bool IsCoded(const KvFormat& format) {
  return IsCoded(format.key_codec) || IsCoded(format.value_codec);
}

std::string_view KvCodecName(KvCodec codec);
// Bytes of one tile of block_tokens x head_dim in a codec, padded to kTileAlignment.
uint64_t KvTileBytes(KvCodec codec, uint32_t block_tokens, uint32_t head_dim);
// Parses "bf16", "int8", "cq8", "cq4", "cq3", "cq2" into both codecs, and "cq4k2v" (any two of the
// widths: keys, values) into one each. RETURNS false if the name is unknown.
bool ParseKvFormatName(std::string_view name, KvCodec* key_codec, KvCodec* value_codec);
// The same, and after it layers of other cq codecs: "cq4+0-1:cq8+29:cq8k4v" is cq4 but for layers
// 0, 1 and 29. Sets the codecs of a format that says how many layers there are. RETURNS what is
// wrong with the name, in words that follow it; "" if nothing is, else the format is as it was.
std::string ParseKvFormat(std::string_view name, KvFormat* format);
// The shortest name ParseKvFormat takes: of equal formats the same.
std::string KvFormatName(const KvFormat& format);

}  // namespace corpusd
