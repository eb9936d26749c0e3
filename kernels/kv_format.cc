#include "kernels/kv_format.h"

namespace corpusd {
namespace {

constexpr uint64_t RoundUp(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

std::string_view KvCodecName(KvCodec codec) {
  switch (codec) {
    case KvCodec::kBf16:
      return "bf16";
    case KvCodec::kInt8:
      return "int8";
  }
  return "unknown";
}

uint64_t KvTileBytes(KvCodec codec, uint32_t block_tokens, uint32_t head_dim) {
  const uint64_t elements = uint64_t{block_tokens} * head_dim;
  switch (codec) {
    case KvCodec::kBf16:
      return RoundUp(elements * 2, kTileAlignment);
    case KvCodec::kInt8:  // codes, then one float32 scale a token
      return RoundUp(elements + uint64_t{block_tokens} * 4, kTileAlignment);
  }
  return 0;
}

uint64_t KvFormat::KeyTileBytes() const { return KvTileBytes(key_codec, block_tokens, head_dim); }
uint64_t KvFormat::ValueTileBytes() const {
  return KvTileBytes(value_codec, block_tokens, head_dim);
}
uint64_t KvFormat::LayerBytes() const { return kv_heads * (KeyTileBytes() + ValueTileBytes()); }
uint64_t KvFormat::BlockBytes() const { return layers * LayerBytes(); }

uint64_t KvFormat::KeyTileOffset(uint32_t layer, uint32_t kv_head) const {
  return layer * LayerBytes() + kv_head * KeyTileBytes();
}

uint64_t KvFormat::ValueTileOffset(uint32_t layer, uint32_t kv_head) const {
  return layer * LayerBytes() + kv_heads * KeyTileBytes() + kv_head * ValueTileBytes();
}

std::string KvFormat::Canonical() const {
  return "kv1;k=" + std::string(KvCodecName(key_codec)) +
         ";v=" + std::string(KvCodecName(value_codec)) + ";layers=" + std::to_string(layers) +
         ";heads=" + std::to_string(kv_heads) + ";dim=" + std::to_string(head_dim) +
         ";tokens=" + std::to_string(block_tokens);
}

bool ParseKvFormatName(std::string_view name, KvCodec* key_codec, KvCodec* value_codec) {
  for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
    if (name == KvCodecName(codec)) {
      *key_codec = codec;
      *value_codec = codec;
      return true;
    }
  }
  return false;
}

std::string KvFormatName(const KvFormat& format) {
  std::string key(KvCodecName(format.key_codec));
  if (format.key_codec == format.value_codec) return key;
  return key + "-" + std::string(KvCodecName(format.value_codec));
}

}  // namespace corpusd
