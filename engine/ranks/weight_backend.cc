#include "engine/ranks/weight_backend.h"

#include "engine/backend/expert_routing.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

std::span<std::byte> BytesOf(MatrixView m) {
  return std::as_writable_bytes(std::span(m.data, size_t{m.rows} * m.cols));
}

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

const PartWeight& PartOf(const Weight& weight) {
  const auto* const part = dynamic_cast<const PartWeight*>(&weight);
  CHECK(part != nullptr) << "a weight that this backend did not load";
  return *part;
}

bool IsContiguous(MatrixView m) { return m.rows <= 1 || m.row_stride == m.cols; }

}  // namespace

WeightBackend::WeightBackend(Backend& local, uint32_t ranks, std::chrono::milliseconds timeout)
    : PartBackend(local, {0, ranks}), timeout_(timeout) {
  Join({});
}

void WeightBackend::Join(std::vector<Peer> peers) {
  peers_ = std::move(peers);
  const bool all = peers_.size() + 1 == seat().ranks;
  const std::lock_guard lock(mutex_);
  if (all) {
    status_ = OkStatus();
  } else if (status_.ok()) {  // else who was lost is what there is to say
    status_ = UnavailableError("the ranks that have parts of the weights are not there");
  }
}

Status WeightBackend::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void WeightBackend::Fail(uint32_t rank, const Status& why) {
  const std::lock_guard lock(mutex_);
  if (!status_.ok()) return;
  status_ = UnavailableError(peers_[rank - 1].name +
                             ", which has a part of the weights, was lost: " + why.message());
}

Status WeightBackend::Look() {
  for (uint32_t rank = 1; rank <= peers_.size(); ++rank) {
    if (HasClosed(peers_[rank - 1].socket)) {
      Fail(rank, UnavailableError("it closed the connection"));
    }
  }
  return status();
}

bool WeightBackend::Send(uint32_t rank, std::span<const std::byte> bytes) {
  if (!ok()) return false;
  const Status sent =
      SendBytes(peers_[rank - 1].socket, bytes, std::chrono::steady_clock::now() + timeout_);
  if (!sent.ok()) Fail(rank, sent);
  sent_bytes_ += bytes.size();
  return sent.ok();
}

bool WeightBackend::SendMatrix(uint32_t rank, MatrixView m) {
  if (IsContiguous(m)) return Send(rank, BytesOf(m));
  for (uint32_t r = 0; r < m.rows; ++r) {
    if (!Send(rank, BytesOf(m.Rows(r, 1)))) return false;
  }
  return true;
}

bool WeightBackend::Receive(uint32_t rank, MatrixView m) {
  if (!ok()) return false;
  const Status received = ReceiveBytes(peers_[rank - 1].socket, BytesOf(m),
                                       std::chrono::steady_clock::now() + timeout_);
  if (!received.ok()) Fail(rank, received);
  return received.ok();
}

MatrixView WeightBackend::Lend(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint64_t cols) {
  const auto memory = Grow(buffer, rows * cols * sizeof(float));
  if (memory.ok()) {
    return (*buffer)->Matrix(static_cast<uint32_t>(rows), static_cast<uint32_t>(cols));
  }
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = memory.status();
  return {};
}

void WeightBackend::Scatter(MatrixView out, const PartWeight& part, uint32_t rank,
                            MatrixView from) {
  uint32_t at = 0;
  for (const NumberRange& range : part.OutputsOf(rank)) {
    local_.CopyMatrix(out.Cols(range.first, range.count), from.Cols(at, range.count));
    at += range.count;
  }
}

void WeightBackend::Gather(MatrixView out, const PartWeight& part, uint32_t rank, MatrixView to) {
  uint32_t at = 0;
  for (const NumberRange& range : part.OutputsOf(rank)) {
    local_.CopyMatrix(to.Cols(at, range.count), out.Cols(range.first, range.count));
    at += range.count;
  }
}

void WeightBackend::MultiplyOwn(MatrixView out, MatrixView x, const PartWeight& part,
                                bool accumulate) {
  if (part.own() == nullptr) return;
  const auto outputs = part.OutputsOf(0);
  if (outputs.size() == 1) {
    return local_.MatMul(out.Cols(outputs[0].first, outputs[0].count), x, *part.own(), accumulate);
  }
  const MatrixView own = Lend(&slices_, out.rows, part.CountOf(0));
  if (!ok()) return;
  if (accumulate) Gather(out, part, 0, own);
  local_.MatMul(own, x, *part.own(), accumulate);
  Scatter(out, part, 0, own);
}

void WeightBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  const PartWeight& part = PartOf(weight);
  if (part.is_expert()) return PartBackend::MatMul(out, x, weight, accumulate);
  CHECK(x.cols == part.cols() && out.cols == part.rows() && out.rows == x.rows)
      << x.cols << " inputs of " << part.cols();
  if (x.rows == 0 || !ok()) return;
  // What is sent must be complete.
  if (!local_.Synchronize().ok()) return;
  WeightRequest request;
  request.weight = part.number();
  request.rows = x.rows;
  request.cols = x.cols;
  request.accumulate = accumulate ? 1 : 0;
  for (uint32_t rank = 1; rank < seat().ranks; ++rank) {
    if (part.CountOf(rank) == 0) continue;
    if (!Send(rank, std::as_bytes(std::span(&request, 1))) || !SendMatrix(rank, x)) return;
    if (!accumulate) continue;
    const MatrixView before = Lend(&inputs_, out.rows, part.CountOf(rank));
    if (!ok()) return;
    Gather(out, part, rank, before);
    if (!Send(rank, BytesOf(before))) return;
  }
  MultiplyOwn(out, x, part, accumulate);
  for (uint32_t rank = 1; rank < seat().ranks; ++rank) {
    const auto outputs = part.OutputsOf(rank);
    if (outputs.empty()) continue;
    if (out.rows == 1 && outputs.size() == 1) {  // it lies as it comes
      if (!Receive(rank, out.Cols(outputs[0].first, outputs[0].count))) return;
      continue;
    }
    const MatrixView theirs = Lend(&slices_, out.rows, part.CountOf(rank));
    if (!ok() || !Receive(rank, theirs)) return;
    Scatter(out, part, rank, theirs);
  }
}

// Every row comes from the rank that has its token.
void WeightBackend::Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) {
  if (ids.empty() || !ok()) return;
  const PartWeight& part = PartOf(table);
  std::vector<std::vector<uint32_t>> rows(seat().ranks), places(seat().ranks);
  for (uint32_t i = 0; i < ids.size(); ++i) {
    const PartWeight::Place place = part.PlaceOf(ids[i]);
    rows[place.rank].push_back(place.row);
    places[place.rank].push_back(i);
  }
  for (uint32_t rank = 1; rank < seat().ranks; ++rank) {
    if (rows[rank].empty()) continue;
    WeightRequest request;
    request.op = WeightOp::kTable;
    request.weight = part.number();
    request.count = static_cast<uint32_t>(rows[rank].size());
    if (!Send(rank, std::as_bytes(std::span(&request, 1))) || !Send(rank, BytesOf(rows[rank]))) {
      return;
    }
  }
  for (uint32_t rank = 0; rank < seat().ranks; ++rank) {
    if (rows[rank].empty()) continue;
    const MatrixView some = Lend(&slices_, rows[rank].size(), out.cols);
    if (!ok()) return;
    if (rank == 0) {
      local_.Embed(some, *part.own(), rows[0]);
    } else if (!Receive(rank, some)) {
      return;
    }
    for (uint32_t i = 0; i < places[rank].size(); ++i) {
      local_.CopyMatrix(out.Rows(places[rank][i], 1), some.Rows(i, 1));
    }
  }
}

// Every expert's rows are computed where the expert is, and added in the order of one device.
void WeightBackend::MixExperts(MatrixView out, const ExpertInput& input) {
  if (!Synchronize().ok()) return;  // the logits are read here
  const uint32_t ranks = seat().ranks;
  const std::vector<ExpertRows> routed = RouteToExperts(input.logits, input.used);
  std::vector<std::vector<WeightExpert>> asked(ranks);
  for (uint32_t e = 0; e < routed.size(); ++e) {
    if (routed[e].rows.empty()) continue;
    const Expert& expert = input.experts[e];
    asked[OwnerOfExpert(e, ranks)].push_back(
        {e, PartOf(*expert.gate_up).number(), PartOf(*expert.down).number()});
  }
  WeightRequest request;
  request.op = WeightOp::kExperts;
  request.rows = input.x.rows;
  request.cols = input.x.cols;
  request.width = input.logits.cols;
  request.used = input.used;
  for (uint32_t rank = 1; rank < ranks; ++rank) {
    if (asked[rank].empty()) continue;
    request.count = static_cast<uint32_t>(asked[rank].size());
    const bool sent = Send(rank, std::as_bytes(std::span(&request, 1))) &&
                      Send(rank, BytesOf(asked[rank])) && SendMatrix(rank, input.x) &&
                      SendMatrix(rank, input.logits);
    if (!sent) return;
  }
  std::vector<uint32_t> first_row = {0};  // of every expert's results
  for (const ExpertRows& expert : routed) {
    first_row.push_back(first_row.back() + static_cast<uint32_t>(expert.rows.size()));
  }
  const MatrixView results = Lend(&slices_, first_row.back(), out.cols);
  if (!ok()) return;
  const auto results_of = [&](uint32_t e) {
    return results.Rows(first_row[e], first_row[e + 1] - first_row[e]);
  };
  for (const WeightExpert& own : asked[0]) {
    local_.CopyMatrix(results_of(own.expert),
                      ApplyExpert(*this, input, input.experts[own.expert], routed[own.expert]));
  }
  for (uint32_t rank = 1; rank < ranks; ++rank) {
    for (const WeightExpert& theirs : asked[rank]) {
      if (!Receive(rank, results_of(theirs.expert))) return;
    }
  }
  for (uint32_t e = 0; e < routed.size(); ++e) {
    if (!routed[e].rows.empty()) AddExpertRows(out, routed[e], results_of(e));
  }
}

Status WeightBackend::Synchronize() {
  const Status joined = status();
  return joined.ok() ? local_.Synchronize() : joined;
}

}  // namespace corpusd
