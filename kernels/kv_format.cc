#include "kernels/kv_format.h"

#include <algorithm>
#include <charconv>
#include <utility>

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

std::string NameOf(const LayerCodecs& codecs) {
  std::string key(KvCodecName(codecs.key));
  if (codecs.key == codecs.value) return key;
  if (IsCoded(codecs.key) && IsCoded(codecs.value)) {
    return key + "k" + std::to_string(CodeBits(codecs.value)) + "v";
  }
  return key + "-" + std::string(KvCodecName(codecs.value));
}

// "0-1:cq8+29:cq8k4v": every run of layers with other codecs than the most have.
std::string ExceptionsOf(const KvFormat& format) {
  const LayerCodecs base{format.key_codec, format.value_codec};
  const std::vector<LayerCodecs>& codecs = format.layer_codecs;
  std::string text;
  for (size_t first = 0, end = 0; first < codecs.size(); first = end) {
    for (end = first; end < codecs.size() && codecs[end] == codecs[first];) ++end;
    if (codecs[first] == base) continue;
    text += (text.empty() ? "" : "+") + std::to_string(first);
    if (end - first > 1) text += "-" + std::to_string(end - 1);
    text += ":" + NameOf(codecs[first]);
  }
  return text;
}

struct LayerException {
  uint32_t first = 0, last = 0;
  LayerCodecs codecs;
};

// "29:cq4k3v", "0-1:cq8". RETURNS false if it is none.
bool ParseException(std::string_view text, LayerException* exception) {
  const char* const end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, exception->first);
  if (error != std::errc()) return false;
  exception->last = exception->first;
  if (at != end && *at == '-') {
    const auto last = std::from_chars(at + 1, end, exception->last);
    if (last.ec != std::errc()) return false;
    at = last.ptr;
  }
  if (at == end || *at != ':' || exception->last < exception->first) return false;
  const std::string_view name(at + 1, static_cast<size_t>(end - at - 1));
  LayerCodecs& codecs = exception->codecs;
  return ParseKvFormatName(name, &codecs.key, &codecs.value) && IsCoded(codecs.key);
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

LayerCodecs KvFormat::CodecsOf(uint32_t layer) const {
  return layer_codecs.empty() ? LayerCodecs{key_codec, value_codec} : layer_codecs[layer];
}
uint64_t KvFormat::KeyTileBytes(uint32_t layer) const {
  return KvTileBytes(CodecsOf(layer).key, block_tokens, head_dim);
}
uint64_t KvFormat::ValueTileBytes(uint32_t layer) const {
  return KvTileBytes(CodecsOf(layer).value, block_tokens, head_dim);
}
uint64_t KvFormat::LayerBytes(uint32_t layer) const {
  return kv_heads * (KeyTileBytes(layer) + ValueTileBytes(layer));
}

uint64_t KvFormat::LayerOffset(uint32_t layer) const {
  if (layer_codecs.empty()) return layer * LayerBytes(0);
  uint64_t bytes = 0;
  for (uint32_t before = 0; before < layer; ++before) bytes += LayerBytes(before);
  return bytes;
}

uint64_t KvFormat::BlockBytes() const {
  if (layer_codecs.empty()) return layers * LayerBytes(0);
  return RoundUp(LayerOffset(layers), uint64_t{layers} * kTileAlignment);
}

uint64_t KvFormat::KeyTileOffset(uint32_t layer, uint32_t kv_head) const {
  return LayerOffset(layer) + kv_head * KeyTileBytes(layer);
}

uint64_t KvFormat::ValueTileOffset(uint32_t layer, uint32_t kv_head) const {
  return LayerOffset(layer) + kv_heads * KeyTileBytes(layer) + kv_head * ValueTileBytes(layer);
}

uint32_t KvFormat::LastSectionOf(uint32_t layer) const {
  if (layer_codecs.empty()) return layer;
  const uint64_t last = LayerOffset(layer) + LayerBytes(layer) - 1;
  return static_cast<uint32_t>(last / (BlockBytes() / layers));
}

KvFormat KvFormat::OfLayer(uint32_t layer) const {
  KvFormat one = *this;
  one.layers = 1;
  one.SetLayerCodecs({CodecsOf(layer)});
  return one;
}

void KvFormat::SetLayerCodecs(std::vector<LayerCodecs> codecs) {
  layer_codecs.clear();
  if (codecs.empty()) return;
  const auto most =
      std::max_element(codecs.begin(), codecs.end(), [&](const auto& a, const auto& b) {
        return std::count(codecs.begin(), codecs.end(), a) <
               std::count(codecs.begin(), codecs.end(), b);
      });
  key_codec = most->key;
  value_codec = most->value;
  if (std::count(codecs.begin(), codecs.end(), *most) != std::ssize(codecs)) {
    layer_codecs = std::move(codecs);
  }
}

std::string KvFormat::Canonical() const {
  std::string text = "kv1;k=" + std::string(KvCodecName(key_codec)) +
                     ";v=" + std::string(KvCodecName(value_codec)) +
                     ";layers=" + std::to_string(layers) + ";heads=" + std::to_string(kv_heads) +
                     ";dim=" + std::to_string(head_dim) + ";tokens=" + std::to_string(block_tokens);
  if (!layer_codecs.empty()) text += ";but=" + ExceptionsOf(*this);
  return text;
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

std::string ParseKvFormat(std::string_view name, KvFormat* format) {
  const size_t end = name.find('+');
  LayerCodecs base;
  if (!ParseKvFormatName(name.substr(0, end), &base.key, &base.value)) {
    return "is not known: bf16, int8, cq8, cq4, cq3, cq2 and mixtures such as cq4k3v are, and "
           "after a cq format its exceptions by layer, such as cq4+0-1:cq8";
  }
  std::vector<LayerCodecs> codecs(format->layers, base);
  std::vector<bool> named(format->layers);
  std::string_view rest = end == std::string_view::npos ? "" : name.substr(end + 1);
  if (end != std::string_view::npos && !IsCoded(base.key)) {
    return "has exceptions by layer, which only cq formats may have";
  }
  for (bool more = end != std::string_view::npos; more;) {
    const size_t next = rest.find('+');
    const std::string_view text = rest.substr(0, next);
    more = next != std::string_view::npos;
    rest = more ? rest.substr(next + 1) : "";
    LayerException exception;
    const std::string quoted = "'" + std::string(text) + "'";
    if (!ParseException(text, &exception)) {
      return "has the exception " + quoted + ", which is none such as 0-1:cq8 or 29:cq4k3v";
    }
    if (exception.last >= format->layers) {
      return "has the exception " + quoted + ", but this model's stored layers are 0 to " +
             std::to_string(format->layers - 1);
    }
    for (uint32_t layer = exception.first; layer <= exception.last; ++layer) {
      if (named[layer]) return "says layer " + std::to_string(layer) + " twice";
      named[layer] = true;
      codecs[layer] = exception.codecs;
    }
  }
  format->key_codec = base.key;  // of a format without layers
  format->value_codec = base.value;
  format->SetLayerCodecs(std::move(codecs));
  return "";
}

std::string KvFormatName(const KvFormat& format) {
  const std::string base = NameOf({format.key_codec, format.value_codec});
  return format.layer_codecs.empty() ? base : base + "+" + ExceptionsOf(format);
}

}  // namespace corpusd
