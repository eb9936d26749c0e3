#include "engine/segment/segment_publisher.h"

namespace corpusd {

void SegmentPublisher::Begin(SegmentBatch batch) {
  CHECK(!under_way_.valid()) << "a batch is on its way";
  batch_ = std::move(batch);
  under_way_ = std::async(std::launch::async, [this] { return Publish(); });
}

Status SegmentPublisher::Wait() {
  if (!under_way_.valid()) return OkStatus();
  const Status status = under_way_.get();
  batch_ = {};  // here: its pages may be a device's
  return status;
}

Status SegmentPublisher::Publish() {
  RETURN_IF_ERROR(BringToHost(backend_, batch_.writes, &stage_));
  const size_t first = record_.chain.size();
  while (true) {
    CorpusRecord record = record_;
    for (const BlockWrite& write : batch_.writes) record.prefill_tokens += write.tokens.size();
    record.prefill_seconds += batch_.compute_seconds;
    auto published = store_.Publish(record, batch_.writes);
    if (published.ok()) {
      record_ = *std::move(published);
      break;
    }
    if (published.status().code() != StatusCode::kAborted) return published.status();
    // Pinned or touched meanwhile: the blocks are the same.
    ASSIGN_OR_RETURN(record_, store_.GetCorpus(record_.name));
    if (record_.chain.size() != first) return published.status();
  }
  std::vector<std::span<const std::byte>> payloads;
  for (const BlockWrite& write : batch_.writes) {
    payloads.push_back(write.payload);
    written_bytes_ += write.payload.size();
  }
  return on_blocks_ ? on_blocks_(first, payloads) : OkStatus();
}

}  // namespace corpusd
