#include "engine/decode/decode_batcher.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace corpusd {
namespace {

// As many as a table takes in the arithmetic of a single row, so that all get the bits of one
// alone.
constexpr uint32_t kRowsMax = 16;
// How long a batch waits for the other answers: they are sampling, or their client is slow to read.
// A step of a small model takes a few milliseconds.
constexpr std::chrono::microseconds kPatience(500);

uint32_t RowsMax(const Backend& backend) {
  return backend.few_rows() == 0 ? kRowsMax : std::min(kRowsMax, backend.few_rows());
}

}  // namespace

DecodeBatcher::DecodeBatcher(const ComputeContext& context)
    : context_(context), rows_max_(RowsMax(context.backend)) {}

DecodeBatcher::Member::Member(DecodeBatcher& batcher) : batcher_(batcher) {
  const std::lock_guard<std::mutex> lock(batcher_.mutex_);
  ++batcher_.members_;
}

DecodeBatcher::Member::~Member() {
  {
    const std::lock_guard<std::mutex> lock(batcher_.mutex_);
    --batcher_.members_;
  }
  batcher_.changed_.notify_all();
}

DecodeBatcher::Counts DecodeBatcher::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

Status DecodeBatcher::Step(std::span<const DecodeStep> steps) {
  std::vector<Request> requests;
  for (const DecodeStep& step : steps) {
    if (step.tap != nullptr) step.tap->Begin(1);
    requests.push_back({&step});
  }
  const auto done = [&] {
    return std::all_of(requests.begin(), requests.end(), [](const Request& r) { return r.done; });
  };
  std::unique_lock<std::mutex> lock(mutex_);
  for (Request& request : requests) waiting_.push_back(&request);
  changed_.notify_all();
  while (!done()) {
    if (leading_) {
      changed_.wait(lock);
      continue;
    }
    leading_ = true;
    RunBatch(lock);
    leading_ = false;
    changed_.notify_all();
  }
  for (const Request& request : requests) RETURN_IF_ERROR(request.status);
  return OkStatus();
}

std::vector<DecodeBatcher::Request*> DecodeBatcher::TakeBatch() {
  size_t count = 1;
  // A history that is read in turn is read for one answer alone.
  const auto in_turn = [&](size_t i) { return waiting_[i]->step->kv->history() != nullptr; };
  const auto group = [&](size_t i) -> const void* {
    const SequenceTwin* const twin = waiting_[i]->step->kv->twin();
    return twin == nullptr ? nullptr : twin->group();
  };
  while (!in_turn(0) && count < std::min<size_t>(waiting_.size(), rows_max_) && !in_turn(count) &&
         group(count) == group(0)) {
    ++count;
  }
  const std::vector<Request*> batch(waiting_.begin(),
                                    waiting_.begin() + static_cast<ptrdiff_t>(count));
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(count));
  return batch;
}

void DecodeBatcher::RunBatch(std::unique_lock<std::mutex>& lock) {
  changed_.wait_for(lock, kPatience,
                    [&] { return waiting_.size() >= std::min<size_t>(members_, rows_max_); });
  lock.unlock();
  std::vector<Request*> batch;
  {
    // More may come while others compute.
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    lock.lock();
    batch = TakeBatch();
    lock.unlock();
    // Neighbours share pages.
    std::stable_sort(batch.begin(), batch.end(), [](const Request* a, const Request* b) {
      return a->step->kv->first_page() < b->step->kv->first_page();
    });
    const Status status = Compute(batch);
    for (Request* request : batch) request->status = status;
  }
  lock.lock();
  for (Request* request : batch) request->done = true;
  counts_.steps += batch.size();
  ++counts_.batches;
}

Status DecodeBatcher::Compute(const std::vector<Request*>& batch) {
  const uint32_t vocabulary = context_.model.config().vocabulary;
  if (scratch_ == nullptr) {
    ASSIGN_OR_RETURN(
        logits_, context_.backend.AllocateShared(uint64_t{vocabulary} * rows_max_ * sizeof(float),
                                                 "logits of a batch"));
    ASSIGN_OR_RETURN(scratch_,
                     ForwardScratch::Create(context_.backend, context_.model.config(), rows_max_));
  }
  std::vector<TokenId> tokens;
  std::vector<KvSequence*> sequences;
  for (const Request* request : batch) {
    tokens.push_back(request->step->token);
    sequences.push_back(request->step->kv);
  }
  const auto rows = static_cast<uint32_t>(batch.size());
  uint32_t layer = 0;
  RETURN_IF_ERROR(context_.model.ForwardEach(tokens, sequences, *scratch_, [&] {
    const MatrixView qkv = scratch_->Qkv(rows, context_.model.config());
    for (uint32_t r = 0; r < rows; ++r) {
      QueryTap* const tap = batch[r]->step->tap;
      if (tap != nullptr && !tap->Take(context_.backend, layer, qkv, r)) return false;
    }
    ++layer;
    return true;
  }));
  const MatrixView logits = logits_->Matrix(rows, vocabulary);
  RETURN_IF_ERROR(context_.model.Logits(*scratch_, 0, logits));
  for (uint32_t r = 0; r < rows; ++r) {
    std::memcpy(batch[r]->step->logits.data, logits.row(r), size_t{vocabulary} * sizeof(float));
  }
  return OkStatus();
}

}  // namespace corpusd
