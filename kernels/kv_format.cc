#include "kernels/kv_format.h"

namespace corpusd {
namespace {

constexpr uint64_t RoundUp(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr KvCodec kCodecs[] = {KvCodec::kBf16, KvCodec::kInt8, KvCodec::kCq8,
                               KvCodec::kCq4,  KvCodec::kCq3,  KvCodec::kCq2};

// The cq codec whose width is the digit; kBf16 if there is none.
KvCodec CodecOfDigit(char digit) {
  for (const KvCodec codec : kCodecs) {
    if (IsCoded(codec) && digit == static_cast<char>('0' + CodeBits(codec))) return codec;
  }
  return KvCodec::kBf16;
}

}  // namespace

std::string_view KvCodecName(KvCodec codec) {
  switch (codec) {
    case KvCodec::kBf16:
      return "bf16";
    case KvCodec::kInt8:
      return "int8";
    case KvCodec::kCq8:
      return "cq8";
    case KvCodec::kCq4:
      return "cq4";
    case KvCodec::kCq3:
      return "cq3";
    case KvCodec::kCq2:
      return "cq2";
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
    default:  // codes, one byte a token, one a dim
      return RoundUp(elements * CodeBits(codec) / 8 + block_tokens + head_dim, kTileAlignment);
  }
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
  for (const KvCodec codec : kCodecs) {
    if (name == KvCodecName(codec)) {
      *key_codec = codec;
      *value_codec = codec;
      return true;
    }
  }
  if (name.size() != 6 || !name.starts_with("cq") || name[3] != 'k' || name[5] != 'v') return false;
  const KvCodec keys = CodecOfDigit(name[2]);
  const KvCodec values = CodecOfDigit(name[4]);
  if (!IsCoded(keys) || !IsCoded(values)) return false;
  *key_codec = keys;
  *value_codec = values;
  return true;
}

std::string KvFormatName(const KvFormat& format) {
  std::string key(KvCodecName(format.key_codec));
  if (format.key_codec == format.value_codec) return key;
  if (IsCoded(format.key_codec) && IsCoded(format.value_codec)) {
    return key + "k" + std::to_string(CodeBits(format.value_codec)) + "v";
  }
  return key + "-" + std::string(KvCodecName(format.value_codec));
}

}  // namespace corpusd
