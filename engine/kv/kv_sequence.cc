#include "engine/kv/kv_sequence.h"

#include <algorithm>

#include "engine/kv/visible_pages.h"

namespace corpusd {

KvSequence::KvSequence(const KvLayout& layout) : layout_(layout), parts_(layout.part_count()) {
  for (size_t p = 0; p < parts_.size(); ++p) {
    parts_[p].own_format = layout_.OfPart(layout_.own, p);
    if (layout_.sinks == nullptr) continue;
    CHECK(layout_.sinks->parts.size() == parts_.size()) << layout_.sinks->parts.size();
    parts_[p].sink_format = layout_.OfPart(layout_.sinks->format, p);
    parts_[p].sinks.push_back(
        {.bytes = layout_.sinks->parts[p]->data(), .tokens = layout_.sinks->tokens});
  }
  RebuildLists();
}

uint32_t KvSequence::SectionOf(uint32_t layer) const {
  const LayerPlace at = place(layer);
  if (layout_.blocks.layer_codecs.empty()) return at.index;
  return layout_.OfPart(layout_.blocks, at.part).LastSectionOf(at.index);
}

uint32_t KvSequence::HiddenOfNext() const {
  return tokens_ == 0 && layout_.sinks != nullptr ? layout_.sinks->tokens : 0;
}

void KvSequence::AddShared(const KvFormat& format, const SharedPage& page) {
  Append(format, page);
  RebuildLists();
}

void KvSequence::AddShared(std::span<const SharedPage> pages) {
  for (const SharedPage& page : pages) Append(layout_.blocks, page);
  RebuildLists();
}

void KvSequence::Append(const KvFormat& format, const SharedPage& page) {
  CHECK(parts_.front().own.empty()) << "shared pages come before own ones";
  CHECK(page.tokens >= 1 && page.tokens <= format.block_tokens) << page.tokens;
  // A page whose slot 0 would come before position 0 begins there, and leaves a gap.
  const uint64_t first = tokens_ - std::min<uint64_t>(tokens_, page.hidden);
  const uint32_t hidden = std::min(std::max(page.hidden, HiddenOfNext()), page.tokens);
  for (size_t p = 0; p < parts_.size(); ++p) {
    const KvFormat own_share = layout_.OfPart(format, p);
    auto& shared = parts_[p].shared;
    if (shared.empty() || !(shared.back().format == own_share)) shared.push_back({own_share, {}});
    const std::byte* bytes = p == 0                       ? page.bytes
                             : p - 1 < page.others.size() ? page.others[p - 1]
                                                          : nullptr;
    if (bytes == nullptr) bytes = AbsentPage();
    shared.back().pages.push_back({bytes, first, page.tokens, hidden});
  }
  tokens_ = first + page.tokens;
}

Result<std::unique_ptr<KvSequence>> KvSequence::Fork(Backend& backend) const {
  auto fork = std::make_unique<KvSequence>(layout_);
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    Part& other = fork->parts_[p];
    other.arriving = part.arriving;
    other.shared = part.shared;
    other.own = part.own;
    other.buffers = part.buffers;
    if (part.own.empty() || part.own.back().tokens == layout_.own.block_tokens) continue;
    ASSIGN_OR_RETURN(std::shared_ptr<Buffer> copy,
                     backend.Allocate(StoredBytes(part.own_format), "KV page"));
    RETURN_IF_ERROR(backend.Copy(copy->data(), part.buffers.back()->data(), copy->bytes()));
    other.own.back().bytes = copy->data();
    other.buffers.back() = std::move(copy);
  }
  fork->tokens_ = tokens_;
  fork->history_ = history_;
  if (twin_ != nullptr) fork->twin_ = twin_->Fork();
  fork->RebuildLists();
  return fork;
}

void KvSequence::AddOwn(std::shared_ptr<Buffer> page) {
  const uint32_t page_tokens = layout_.own.block_tokens;
  CHECK(parts_.size() == 1 && parts_.front().shared.empty() && tokens_ % page_tokens == 0)
      << tokens_;
  parts_.front().own.push_back({page->data(), tokens_, page_tokens, HiddenOfNext()});
  parts_.front().buffers.push_back(std::move(page));
  tokens_ += page_tokens;
  RebuildLists();
}

std::vector<std::shared_ptr<Buffer>> KvSequence::OwnPages(size_t first, size_t count) const {
  const Part& part = parts_.front();
  CHECK(parts_.size() == 1 && first + count <= part.own.size() &&
        part.own[first + count - 1].tokens == layout_.own.block_tokens)
      << first << " + " << count << " of " << part.own.size();
  const auto begin = part.buffers.begin() + static_cast<ptrdiff_t>(first);
  return {begin, begin + static_cast<ptrdiff_t>(count)};
}

Status KvSequence::Extend(Backend& backend, uint32_t count) {
  while (count > 0) {
    const Part& leader = parts_.front();
    if (leader.own.empty() || leader.own.back().tokens == layout_.own.block_tokens) {
      const uint32_t hidden = HiddenOfNext();
      for (Part& part : parts_) {
        ASSIGN_OR_RETURN(auto buffer, backend.Allocate(StoredBytes(part.own_format), "KV page"));
        backend.Clear(buffer->data(), buffer->bytes());
        part.own.push_back({buffer->data(), tokens_, 0, hidden});
        part.buffers.push_back(std::move(buffer));
      }
    }
    const uint32_t fit = std::min(count, layout_.own.block_tokens - leader.own.back().tokens);
    for (Part& part : parts_) part.own.back().tokens += fit;
    tokens_ += fit;
    count -= fit;
  }
  RebuildLists();
  return OkStatus();
}

std::vector<KvSequence::Target> KvSequence::TargetsOfLast(uint32_t count, uint32_t part) const {
  std::vector<Target> targets;
  const Part& p = parts_[part];
  const uint64_t first = tokens_ - count;
  for (size_t i = 0; i < p.own.size(); ++i) {
    const KvPage& page = p.own[i];
    const uint64_t end = page.first_position + page.tokens;
    if (end <= first) continue;
    const auto slot =
        static_cast<uint32_t>(std::max(first, page.first_position) - page.first_position);
    targets.push_back({p.buffers[i]->data(), slot, page.tokens - slot});
  }
  uint64_t rows = 0;
  for (const Target& target : targets) rows += target.rows;
  CHECK(rows == count) << rows << " rows found of " << count;
  return targets;
}

KvSequence::Target KvSequence::TargetOfLast(uint32_t part) const {
  const Part& p = parts_[part];
  CHECK(!p.own.empty() && p.own.back().tokens > 0) << "no own token";
  return {p.buffers.back()->data(), p.own.back().tokens - 1, 1};
}

uint64_t KvSequence::bytes() const {
  uint64_t bytes = 0;
  for (const Part& part : parts_) {
    bytes += part.own.size() * part.own_format.BlockBytes();
    for (const SharedRun& run : part.shared) {
      const auto there = std::count_if(run.pages.begin(), run.pages.end(), [](const KvPage& page) {
        return page.bytes != AbsentPage();
      });
      bytes += static_cast<uint64_t>(there) * run.format.BlockBytes();
    }
  }
  return bytes;
}

std::vector<KvSequence::OwnBlock> KvSequence::OwnBlocks(uint32_t part) const {
  std::vector<OwnBlock> blocks;
  blocks.reserve(parts_[part].own.size());
  for (const KvPage& page : parts_[part].own) {
    blocks.push_back({{page.bytes, StoredBytes(parts_[part].own_format)}, page.tokens});
  }
  return blocks;
}

Result<std::vector<KvSequence::OwnBlock>> KvSequence::HostBlocks(Backend& backend, uint32_t part) {
  std::vector<OwnBlock> blocks = OwnBlocks(part);
  if (backend.host_addressable() || blocks.empty()) return blocks;
  auto& host = parts_[part].host;
  const uint64_t bytes = blocks.front().bytes.size();
  ASSIGN_OR_RETURN(host, backend.AllocateShared(blocks.size() * bytes, "blocks to store"));
  std::vector<CopyPiece> pieces;
  for (OwnBlock& block : blocks) {
    std::byte* const copy = host->data() + pieces.size() * bytes;
    pieces.push_back({copy, block.bytes.data(), bytes});
    block.bytes = {copy, bytes};
  }
  RETURN_IF_ERROR(backend.CopyBeside(pieces));
  return blocks;
}

uint64_t KvSequence::attended_tokens() const {
  uint64_t count = 0;
  for (const KvPageList& list : lists()) {
    for (const KvPage& page : list.pages) count += page.tokens - page.hidden;
  }
  return count;
}

void KvSequence::RebuildLists() {
  for (Part& part : parts_) {
    part.lists.clear();
    if (!part.sinks.empty()) part.lists.push_back({&part.sink_format, part.sinks});
    for (const SharedRun& run : part.shared) part.lists.push_back({&run.format, run.pages});
    if (!part.own.empty()) part.lists.push_back({&part.own_format, part.own});
  }
}

}  // namespace corpusd
