#include "engine/ranks/tensor_backend.h"

#include <algorithm>

#include "engine/backend/expert_routing.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// A weight of which the rank has some rows, or none; to the model it is as large as its product.
class SharedWeight final : public Weight {
 public:
  SharedWeight(TensorPart part, std::unique_ptr<Weight> own, uint32_t rows, uint32_t cols)
      : part_(part), own_(std::move(own)), rows_(rows), cols_(cols) {}
  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override { return own_ == nullptr ? 0 : own_->bytes(); }
  TensorPart part() const { return part_; }
  const Weight& own() const { return *own_; }

 private:
  const TensorPart part_;
  const std::unique_ptr<Weight> own_;  // null: an expert of another rank
  const uint32_t rows_, cols_;
};

const SharedWeight& Shared(const Weight& weight) {
  const auto* const shared = dynamic_cast<const SharedWeight*>(&weight);
  CHECK(shared != nullptr) << "a weight that this backend did not load";
  return *shared;
}

}  // namespace

TensorBackend::TensorBackend(Backend& local, Transport& group, const TensorShare& share)
    : ForwardingBackend(local), group_(group), share_(share) {
  CHECK(group.rank() == share.rank() && group.size() == share.ranks())
      << share.rank() << " of " << share.ranks();
}

Result<std::unique_ptr<Weight>> TensorBackend::LoadWeight(std::span<const WeightSource> sources) {
  const WeightSource& first = sources.front();
  const TensorPart part = TensorShare::PartOf(first.name);
  if (part == TensorPart::kExpert && !host_addressable()) {
    return UnimplementedError("experts are shared by ranks on CPUs only, not on " +
                              std::string(name()));
  }
  if (part == TensorPart::kExpert && first.bytes.empty()) {
    return std::unique_ptr<Weight>(
        std::make_unique<SharedWeight>(part, nullptr, first.rows, first.cols));
  }
  ASSIGN_OR_RETURN(auto own, local_.LoadWeight(sources));
  weight_bytes_ += own->bytes();
  uint32_t rows = own->rows(), cols = own->cols();
  if (part == TensorPart::kJoined) {
    rows *= share_.ranks();
    cols /= share_.ranks();
  } else if (part == TensorPart::kVocabulary) {
    rows = share_.whole().vocabulary;
  } else {
    return own;
  }
  return std::unique_ptr<Weight>(std::make_unique<SharedWeight>(part, std::move(own), rows, cols));
}

bool TensorBackend::Keep(Status status) {
  if (status_.ok() && !status.ok()) {
    status_ = std::move(status);
    group_.Abort(status_);
  }
  return status_.ok();
}

MatrixView TensorBackend::Grow(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint32_t cols) {
  const uint64_t bytes = rows * cols * sizeof(float);
  if (*buffer == nullptr || (*buffer)->bytes() < bytes) {
    // What is under way may read the old one.
    if (!Keep(local_.Synchronize())) return {};
    buffer->reset();
    auto grown = local_.Allocate(bytes + bytes / 4, "what ranks exchange");
    if (!Keep(grown.status())) return {};
    *buffer = std::move(*grown);
  }
  return (*buffer)->Matrix(static_cast<uint32_t>(rows), cols);
}

bool TensorBackend::Exchange(std::byte* bytes, std::span<const uint64_t> begins) {
  const uint32_t ranks = share_.ranks(), me = share_.rank();
  // What is sent must be complete.
  if (!Keep(local_.Synchronize())) return false;
  const auto of = [&](uint32_t r) {
    return std::span(bytes + begins[r], begins[r + 1] - begins[r]);
  };
  std::vector<TransferPtr> transfers;
  for (uint32_t step = 1; step < ranks; ++step) {
    const uint32_t to = (me + step) % ranks, from = (me + ranks - step) % ranks;
    if (!of(me).empty()) {
      transfers.push_back(group_.Send(to, of(me)));
      sent_bytes_ += of(me).size();
    }
    if (!of(from).empty()) transfers.push_back(group_.Receive(from, of(from)));
  }
  return Keep(WaitAll(transfers));
}

void TensorBackend::JoinColumns(MatrixView m,
                                const std::function<NumberRange(uint32_t)>& columns_of) {
  const uint32_t ranks = share_.ranks();
  if (!status_.ok() || ranks == 1) return;
  std::vector<uint64_t> begins = {0};
  for (uint32_t r = 0; r < ranks; ++r) {
    begins.push_back(begins.back() + uint64_t{m.rows} * columns_of(r).count * sizeof(float));
  }
  if (m.rows == 1 && host_addressable()) {  // they lie as they travel
    Exchange(reinterpret_cast<std::byte*>(m.data), begins);
    return;
  }
  const MatrixView slices = Grow(&slices_, m.rows, m.cols);
  if (!status_.ok()) return;
  const auto slice_of = [&](uint32_t r) -> MatrixView {
    const uint32_t cols = columns_of(r).count;
    return {slices.data + begins[r] / sizeof(float), m.rows, cols, cols};
  };
  const auto place_of = [&](uint32_t r) {
    return m.Cols(columns_of(r).first, columns_of(r).count);
  };
  local_.CopyMatrix(slice_of(share_.rank()), place_of(share_.rank()));
  if (!Exchange(reinterpret_cast<std::byte*>(slices.data), begins)) return;
  for (uint32_t r = 0; r < ranks; ++r) {
    if (r != share_.rank()) local_.CopyMatrix(place_of(r), slice_of(r));
  }
}

void TensorBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  const auto* const shared = dynamic_cast<const SharedWeight*>(&weight);
  if (shared == nullptr) return local_.MatMul(out, x, weight, accumulate);
  CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows)
      << x.cols << " inputs of " << weight.cols();
  if (x.rows == 0 || !status_.ok()) return;
  if (shared->part() == TensorPart::kVocabulary) {
    const NumberRange own = share_.VocabularyOf(share_.rank());
    if (own.count > 0) {
      local_.MatMul(out.Cols(own.first, own.count), x, shared->own(), accumulate);
    }
    return JoinColumns(out, [&](uint32_t r) { return share_.VocabularyOf(r); });
  }
  CHECK(shared->part() == TensorPart::kJoined) << "the product of an expert";
  const auto even = [](uint32_t count) {
    return [count](uint32_t r) -> NumberRange { return {r * count, count}; };
  };
  const uint32_t own_rows = out.cols / share_.ranks();
  const MatrixView inputs = Grow(&inputs_, x.rows, x.cols * share_.ranks());
  if (!status_.ok()) return;
  local_.CopyMatrix(inputs.Cols(share_.rank() * x.cols, x.cols), x);
  JoinColumns(inputs, even(x.cols));
  if (!status_.ok()) return;
  local_.MatMul(out.Cols(share_.rank() * own_rows, own_rows), inputs, shared->own(), accumulate);
  JoinColumns(out, even(own_rows));
}

// Every row comes from the rank that has its token.
void TensorBackend::Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) {
  if (!status_.ok()) return;
  const uint32_t ranks = share_.ranks();
  const auto owner_of = [&](uint32_t id) {
    uint32_t rank = 0;
    while (id >= share_.VocabularyOf(rank).end()) ++rank;
    return rank;
  };
  std::vector<uint32_t> own, counts(ranks), owners;
  for (const uint32_t id : ids) {
    owners.push_back(owner_of(id));
    ++counts[owners.back()];
    if (owners.back() == share_.rank())
      own.push_back(id - share_.VocabularyOf(owners.back()).first);
  }
  std::vector<uint64_t> begins = {0};
  std::vector<uint32_t> next = {0};  // of every rank, the first row that is not placed yet
  for (uint32_t r = 0; r < ranks; ++r) {
    begins.push_back(begins.back() + uint64_t{counts[r]} * out.cols * sizeof(float));
    next.push_back(next.back() + counts[r]);
  }
  const MatrixView rows = Grow(&slices_, ids.size(), out.cols);
  if (!status_.ok()) return;
  if (!own.empty()) {
    local_.Embed(rows.Rows(next[share_.rank()], counts[share_.rank()]), Shared(table).own(), own);
  }
  if (!Exchange(reinterpret_cast<std::byte*>(rows.data), begins)) return;
  for (uint32_t i = 0; i < ids.size();) {
    uint32_t end = i + 1;
    while (end < ids.size() && owners[end] == owners[i]) ++end;
    local_.CopyMatrix(out.Rows(i, end - i), rows.Rows(next[owners[i]], end - i));
    next[owners[i]] += end - i;
    i = end;
  }
}

// Every expert's rows are computed where the expert is; all ranks then add all results, in the
// order of one rank.
void TensorBackend::MixExperts(MatrixView out, const ExpertInput& input) {
  if (!Keep(Synchronize())) return;  // the logits are read here
  const uint32_t ranks = share_.ranks();
  const std::vector<ExpertRows> routed = RouteToExperts(input.logits, input.used);
  std::vector<uint32_t> first_row = {0};  // of every expert's results
  for (const ExpertRows& expert : routed) {
    first_row.push_back(first_row.back() + static_cast<uint32_t>(expert.rows.size()));
  }
  const MatrixView results = Grow(&slices_, first_row.back(), out.cols);
  if (!status_.ok()) return;
  const auto results_of = [&](uint32_t e) {
    return results.Rows(first_row[e], first_row[e + 1] - first_row[e]);
  };
  const NumberRange own = share_.ExpertsOf(share_.rank());
  for (uint32_t e = own.first; e < own.end(); ++e) {
    if (routed[e].rows.empty()) continue;
    local_.CopyMatrix(results_of(e), ApplyExpert(local_, input, input.experts[e], routed[e]));
  }
  std::vector<uint64_t> begins;
  for (uint32_t r = 0; r < ranks; ++r) {
    begins.push_back(uint64_t{first_row[share_.ExpertsOf(r).first]} * out.cols * sizeof(float));
  }
  begins.push_back(uint64_t{first_row.back()} * out.cols * sizeof(float));
  if (!Exchange(reinterpret_cast<std::byte*>(results.data), begins)) return;
  for (uint32_t e = 0; e < routed.size(); ++e) {
    if (!routed[e].rows.empty()) AddExpertRows(out, routed[e], results_of(e));
  }
}

}  // namespace corpusd
