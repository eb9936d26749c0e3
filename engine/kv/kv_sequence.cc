#include "engine/kv/kv_sequence.h"

#include <algorithm>

namespace corpusd {

KvSequence::KvSequence(const KvLayout& layout) : layout_(layout) {
  if (layout_.sinks == nullptr) return;
  sinks_.push_back({.bytes = layout_.sinks->bytes->data(), .tokens = layout_.sinks->tokens});
  RebuildLists();
}

uint32_t KvSequence::HiddenOfNext() const {
  return tokens_ == 0 && layout_.sinks != nullptr ? layout_.sinks->tokens : 0;
}

void KvSequence::AddShared(const KvFormat& format, const SharedPage& page) {
  CHECK(own_.empty()) << "shared pages come before own ones";
  CHECK(page.tokens >= 1 && page.tokens <= format.block_tokens) << page.tokens;
  if (shared_.empty() || !(shared_.back().format == format)) shared_.push_back({format, {}});
  // A page whose slot 0 would come before position 0 begins there, and leaves a gap.
  const uint64_t first = tokens_ - std::min<uint64_t>(tokens_, page.hidden);
  const uint32_t hidden = std::min(std::max(page.hidden, HiddenOfNext()), page.tokens);
  shared_.back().pages.push_back({page.bytes, first, page.tokens, hidden});
  tokens_ = first + page.tokens;
  RebuildLists();
}

Result<std::unique_ptr<KvSequence>> KvSequence::Fork(Backend& backend) const {
  auto fork = std::make_unique<KvSequence>(layout_);
  fork->arriving_ = arriving_;
  fork->shared_ = shared_;
  fork->own_ = own_;
  fork->buffers_ = buffers_;
  fork->tokens_ = tokens_;
  if (!own_.empty() && own_.back().tokens < layout_.own.block_tokens) {
    ASSIGN_OR_RETURN(std::shared_ptr<Buffer> copy,
                     backend.Allocate(layout_.own.BlockBytes(), "KV page"));
    RETURN_IF_ERROR(backend.Copy(copy->data(), buffers_.back()->data(), copy->bytes()));
    fork->own_.back().bytes = copy->data();
    fork->buffers_.back() = std::move(copy);
  }
  fork->RebuildLists();
  return fork;
}

Status KvSequence::Extend(Backend& backend, uint32_t count) {
  while (count > 0) {
    if (own_.empty() || own_.back().tokens == layout_.own.block_tokens) {
      ASSIGN_OR_RETURN(auto buffer, backend.Allocate(layout_.own.BlockBytes(), "KV page"));
      backend.Clear(buffer->data(), buffer->bytes());
      own_.push_back({buffer->data(), tokens_, 0, HiddenOfNext()});
      buffers_.push_back(std::move(buffer));
    }
    const uint32_t fit = std::min(count, layout_.own.block_tokens - own_.back().tokens);
    own_.back().tokens += fit;
    tokens_ += fit;
    count -= fit;
  }
  RebuildLists();
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

Result<std::vector<KvSequence::OwnBlock>> KvSequence::HostBlocks(Backend& backend) {
  std::vector<OwnBlock> blocks = OwnBlocks();
  if (backend.host_addressable()) return blocks;
  host_.clear();
  for (OwnBlock& block : blocks) {
    ASSIGN_OR_RETURN(auto copy, backend.AllocateShared(block.bytes.size(), "blocks to store"));
    RETURN_IF_ERROR(backend.Copy(copy->data(), block.bytes.data(), block.bytes.size()));
    block.bytes = {copy->data(), block.bytes.size()};
    host_.push_back(std::move(copy));
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

void KvSequence::RebuildLists() {
  lists_.clear();
  if (!sinks_.empty()) lists_.push_back({&layout_.sinks->format, sinks_});
  for (const SharedRun& run : shared_) lists_.push_back({&run.format, run.pages});
  if (!own_.empty()) lists_.push_back({&layout_.own, own_});
}

}  // namespace corpusd
