#include "engine/ranks/parted_weight.h"

#include <string>

#include "engine/ranks/tensor_share.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint32_t kTogether = 4;  // numbers that are copied in one go

// A row of zeros in any type: of a block, too, scales and codes of nothing but zeros.
constexpr size_t kZeroRowMax = size_t{1} << 20;
std::span<const std::byte> ZeroRow(uint64_t bytes) {
  static const std::vector<std::byte> kZeros(kZeroRowMax);
  CHECK(bytes <= kZeros.size()) << bytes;
  return std::span(kZeros).first(bytes);
}

}  // namespace

PartedUse UseOf(std::string_view tensor) {
  const auto has = [&](std::string_view what) { return tensor.find(what) != tensor.npos; };
  switch (TensorShare::PartOf(tensor)) {
    case TensorPart::kOwnOutputs:
      return has(".ffn_") ? PartedUse::kInner : PartedUse::kToFirst;
    case TensorPart::kJoined:
      if (has("_shexp.")) return PartedUse::kShared;
      return has(".ffn_") ? PartedUse::kJoined : PartedUse::kFromFirst;
    case TensorPart::kVocabulary:
      return PartedUse::kVocabulary;
    case TensorPart::kExpert:
      return has("down") ? PartedUse::kExpertJoined : PartedUse::kExpertInner;
    case TensorPart::kWhole:
      break;
  }
  return PartedUse::kWhole;
}

Result<std::unique_ptr<PartedWeight>> PartedWeight::Plan(std::span<const WeightSource> sources,
                                                         uint32_t devices) {
  std::unique_ptr<PartedWeight> weight(new PartedWeight());
  weight->use_ = UseOf(sources.front().name);
  weight->cols_ = sources.front().cols;
  weight->pieces_.resize(devices);
  weight->parts_.resize(devices);
  for (const WeightSource& source : sources) {
    CHECK(UseOf(source.name) == weight->use_) << source.name;
    const bool even = source.rows % (devices * kTogether) == 0;
    if (weight->use_ != PartedUse::kWhole && weight->use_ != PartedUse::kVocabulary && !even) {
      return InvalidArgumentError(
          "the weights cannot be dealt to " + std::to_string(devices) + " devices: tensor '" +
          source.name + "' has " + std::to_string(source.rows) +
          " outputs, which is no multiple of " + std::to_string(devices * kTogether));
    }
    for (uint32_t d = 0; d < devices; ++d) {
      std::vector<ColumnPiece>& pieces = weight->pieces_[d];
      const uint64_t rows = source.rows;
      auto first = static_cast<uint32_t>(rows * d / devices);
      auto end = static_cast<uint32_t>(rows * (d + 1) / devices);
      if (weight->use_ == PartedUse::kWhole) first = 0, end = source.rows;
      const uint32_t from = pieces.empty() ? 0 : pieces.back().from + pieces.back().count;
      pieces.push_back({from, weight->rows_ + first, end - first});
    }
    weight->rows_ += source.rows;
  }
  return weight;
}

std::vector<WeightSource> PartedWeight::SourcesOf(uint32_t device,
                                                  std::span<const WeightSource> sources) const {
  std::vector<WeightSource> own;
  uint32_t before = 0;
  for (size_t s = 0; s < sources.size(); ++s) {
    const ColumnPiece& piece = pieces_[device][s];
    const uint64_t row_bytes = WeightRowBytes(sources[s].type, cols_);
    WeightSource& rows = own.emplace_back(sources[s]);
    rows.rows = piece.count;
    rows.bytes = rows.bytes.subspan((piece.to - before) * row_bytes, piece.count * row_bytes);
    before += sources[s].rows;
  }
  if (use_ == PartedUse::kVocabulary) {
    WeightSource zeros = own.back();
    zeros.rows = 1;
    zeros.bytes = ZeroRow(WeightRowBytes(zeros.type, cols_));
    own.push_back(std::move(zeros));
  }
  return own;
}

uint64_t PartedWeight::bytes() const {
  uint64_t bytes = 0;
  for (const auto& part : parts_) bytes += part == nullptr ? 0 : part->bytes();
  return bytes;
}

uint32_t PartedWeight::CountOf(uint32_t device) const {
  uint32_t count = 0;
  for (const ColumnPiece& piece : pieces_[device]) count += piece.count;
  return count;
}

}  // namespace corpusd
