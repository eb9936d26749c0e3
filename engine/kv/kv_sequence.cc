#include "engine/kv/kv_sequence.h"

#include <algorithm>
#include <cstring>

namespace corpusd {

KvSequence::KvSequence(const KvLayout& layout) : layout_(layout) {
  if (layout_.sinks == nullptr) return;
  sinks_.push_back({.bytes = layout_.sinks->bytes->data(), .tokens = layout_.sinks->tokens});
  Rebuild();
}

uint32_t KvSequence::HiddenAt(uint64_t position) const {
  return position == 0 && layout_.sinks != nullptr ? layout_.sinks->tokens : 0;
}

void KvSequence::AddShared(const KvFormat& format, const SharedPage& page) {
  CHECK(page.tokens >= 1 && page.tokens <= format.block_tokens) << page.tokens;
  if (shared_.empty() || !(shared_.back().format == format)) shared_.push_back({format, {}});
  const uint32_t hidden = std::min(std::max(page.hidden, HiddenAt(shared_tokens_)), page.tokens);
  shared_.back().pages.push_back({page.bytes, shared_tokens_, page.tokens, hidden});
  shared_tokens_ += page.tokens;
  Rebuild();
}

void KvSequence::TruncateShared(size_t pages) {
  shared_tokens_ = 0;
  for (SharedRun& run : shared_) {
    run.pages.resize(std::min(run.pages.size(), pages));
    pages -= run.pages.size();
    for (const KvPage& page : run.pages) shared_tokens_ += page.tokens;
  }
  std::erase_if(shared_, [](const SharedRun& run) { return run.pages.empty(); });
  Rebuild();
}

Status KvSequence::Extend(Backend& backend, uint32_t count) {
  while (count > 0) {
    if (own_.empty() || own_.back().tokens == layout_.own.block_tokens) {
      ASSIGN_OR_RETURN(auto buffer, backend.Allocate(layout_.own.BlockBytes(), "KV page"));
      std::memset(buffer->data(), 0, buffer->bytes());
      own_.push_back({buffer->data(), tokens_, 0, HiddenAt(tokens_)});
      buffers_.push_back(std::move(buffer));
    }
    const uint32_t fit = std::min(count, layout_.own.block_tokens - own_.back().tokens);
    own_.back().tokens += fit;
    tokens_ += fit;
    count -= fit;
  }
  Rebuild();
  return OkStatus();
}

std::vector<KvSequence::Target> KvSequence::TargetsOfLast(uint32_t count) const {
  std::vector<Target> targets;
  const uint64_t first = tokens_ - count;
  for (size_t i = 0; i < own_.size(); ++i) {
    const KvPage& page = own_[i];
    const uint64_t end = page.first_position + page.tokens;
    if (end <= first) continue;
    const auto slot =
        static_cast<uint32_t>(std::max(first, page.first_position) - page.first_position);
    targets.push_back({buffers_[i]->data(), slot, page.tokens - slot});
  }
  uint64_t rows = 0;
  for (const Target& target : targets) rows += target.rows;
  CHECK(rows == count) << rows << " rows found of " << count;
  return targets;
}

uint64_t KvSequence::bytes() const {
  uint64_t bytes = own_.size() * layout_.own.BlockBytes();
  for (const SharedRun& run : shared_) bytes += run.pages.size() * run.format.BlockBytes();
  return bytes;
}

std::vector<KvSequence::OwnBlock> KvSequence::OwnBlocks() const {
  std::vector<OwnBlock> blocks;
  blocks.reserve(own_.size());
  for (const KvPage& page : own_) {
    blocks.push_back({{page.bytes, layout_.own.BlockBytes()}, page.tokens});
  }
  return blocks;
}

uint64_t KvSequence::attended_tokens() const {
  uint64_t count = 0;
  for (const KvPageList& list : lists_) {
    for (const KvPage& page : list.pages) count += page.tokens - page.hidden;
  }
  return count;
}

void KvSequence::Rebuild() {
  tokens_ = shared_tokens_;
  for (KvPage& page : own_) {
    page.first_position = tokens_;
    tokens_ += page.tokens;
  }
  lists_.clear();
  if (!sinks_.empty()) lists_.push_back({&layout_.sinks->format, sinks_});
  for (const SharedRun& run : shared_) lists_.push_back({&run.format, run.pages});
  if (!own_.empty()) lists_.push_back({&layout_.own, own_});
}

}  // namespace corpusd
