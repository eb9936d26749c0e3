#include "engine/ranks/weight_parts.h"

#include <charconv>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint32_t kPanelRows = 16;

}  // namespace

NumberRange RowsOfPart(uint32_t rows, uint32_t rank, uint32_t ranks) {
  CHECK(rank < ranks) << rank << " of " << ranks;
  const uint32_t unit = rows >= kPanelRows * ranks ? kPanelRows : 1;
  const auto first = [&](uint32_t r) {
    return r == ranks ? rows : static_cast<uint32_t>(uint64_t{rows / unit} * r / ranks * unit);
  };
  return {first(rank), first(rank + 1) - first(rank)};
}

std::optional<uint32_t> ExpertOf(std::string_view tensor) {
  const size_t open = tensor.rfind('[');
  if (open == std::string_view::npos) return std::nullopt;
  uint32_t expert = 0;
  const auto [end, error] =
      std::from_chars(tensor.data() + open + 1, tensor.data() + tensor.size(), expert);
  const bool whole = error == std::errc() && end + 1 == tensor.data() + tensor.size();
  return whole ? std::optional(expert) : std::nullopt;
}

Result<std::unique_ptr<PartWeight>> PartWeight::Load(Backend& backend,
                                                     std::span<const WeightSource> sources,
                                                     const WeightSeat& seat, uint32_t number) {
  std::unique_ptr<PartWeight> weight(new PartWeight());
  weight->cols_ = sources.front().cols;
  weight->number_ = number;
  weight->outputs_.resize(seat.ranks);
  weight->counts_.resize(seat.ranks);
  const auto expert = ExpertOf(sources.front().name);
  weight->is_expert_ = expert.has_value();
  std::vector<WeightSource> own;
  for (const WeightSource& source : sources) {
    const uint64_t row_bytes = WeightRowBytes(source.type, source.cols);
    for (uint32_t rank = 0; rank < seat.ranks; ++rank) {
      NumberRange part = RowsOfPart(source.rows, rank, seat.ranks);
      if (expert) part = {0, OwnerOfExpert(*expert, seat.ranks) == rank ? source.rows : 0};
      if (part.count == 0) continue;
      weight->outputs_[rank].push_back({weight->rows_ + part.first, part.count});
      weight->counts_[rank] += part.count;
      if (rank != seat.rank) continue;
      WeightSource rows = source;
      rows.rows = part.count;
      rows.bytes = source.bytes.subspan(part.first * row_bytes, part.count * row_bytes);
      own.push_back(std::move(rows));
    }
    weight->rows_ += source.rows;
  }
  if (!own.empty()) {
    ASSIGN_OR_RETURN(weight->own_, backend.LoadWeight(own));
  }
  return weight;
}

PartWeight::Place PartWeight::PlaceOf(uint32_t output) const {
  for (uint32_t rank = 0; rank < outputs_.size(); ++rank) {
    uint32_t row = 0;
    for (const NumberRange& range : outputs_[rank]) {
      if (output >= range.first && output < range.end()) return {rank, row + output - range.first};
      row += range.count;
    }
  }
  CHECK(false) << "output " << output << " of " << rows_;
  return {};
}

Result<std::unique_ptr<Weight>> PartBackend::LoadWeight(std::span<const WeightSource> sources) {
  ASSIGN_OR_RETURN(auto weight, PartWeight::Load(local_, sources, seat_,
                                                 static_cast<uint32_t>(weights_.size())));
  weights_.push_back(weight.get());
  weight_bytes_ += weight->bytes();
  return std::unique_ptr<Weight>(std::move(weight));
}

void PartBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  const auto& part = static_cast<const PartWeight&>(weight);
  CHECK(part.is_expert() && part.own() != nullptr) << "a product of which not all is here";
  local_.MatMul(out, x, *part.own(), accumulate);
}

Result<std::byte*> PartBackend::Grow(std::unique_ptr<Buffer>* buffer, uint64_t bytes) {
  if (*buffer == nullptr || (*buffer)->bytes() < bytes) {
    buffer->reset();
    ASSIGN_OR_RETURN(*buffer, local_.Allocate(bytes + bytes / 4, "what ranks exchange"));
  }
  return (*buffer)->data();
}

}  // namespace corpusd
