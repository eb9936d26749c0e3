// engine/kv/kv_sequence.h -- the pages one computation attends to: shared ones of the store, in the
// corpus's format, then its own, which grow. Knows where every new token's K and V go. Owns its own
// pages; the leases of shared pages are the caller's and must outlive it. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/kv/kv_layout.h"
#include "kernels/shapes.h"
#include "store/base/result.h"
#include "store/block_prefetch.h"

namespace corpusd {

class KvSequence {
 public:
  // layout.blocks: of the pages added by AddShared. layout.own: of the pages it grows. With sinks,
  // the first page's tokens that they stand for are written but not read.
  explicit KvSequence(const KvLayout& layout);
  // Pages that are not coded.
  KvSequence(const KvFormat& shared_format, const KvFormat& own_format)
      : KvSequence(KvLayout{shared_format, own_format, nullptr, nullptr}) {}
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  // REQUIRES: no own page yet; bytes of layout.blocks' BlockBytes().
  void AddShared(const std::byte* bytes, uint32_t tokens) {
    AddShared(layout_.blocks, {bytes, tokens});
  }
  struct SharedPage {
    const std::byte* bytes = nullptr;
    uint32_t tokens = 0;  // slots, from the first, that are read or hidden
    uint32_t hidden = 0;  // of them, from the first, that are not read and take no positions
  };
  void AddShared(const SharedPage& page) { AddShared(layout_.blocks, page); }
  // The same for a page of another format, such as exact first tokens before a coded history.
  void AddShared(const KvFormat& format, const SharedPage& page);
  // The shared pages are still on their way: section i of their blocks is layer i. Null: all there.
  void Follow(BlockPrefetch* arriving) { arriving_ = arriving; }
  // Whether layer i of every shared page can be read; waits until it can, or says why it never can.
  bool HasLayer(uint32_t layer) const {
    return arriving_ == nullptr || arriving_->HasSection(layer);
  }
  Status WaitLayer(uint32_t layer) const {
    return arriving_ == nullptr ? OkStatus() : arriving_->WaitSection(layer);
  }
  // A second sequence that goes on from here: full pages are shared by both, the last own page is
  // copied if it has room. The lists are alike, so both compute the same bits.
  Result<std::unique_ptr<KvSequence>> Fork(Backend& backend) const;
  // Makes room for `count` more tokens behind the last one, zeroed.
  Status Extend(Backend& backend, uint32_t count);

  struct Target {
    std::byte* block;
    uint32_t first_slot;
    uint32_t rows;
  };
  // Where the last `count` tokens go, in order. REQUIRES: they came by Extend.
  std::vector<Target> TargetsOfLast(uint32_t count) const;

  // For AttentionInput; valid until the next AddShared or Extend.
  std::span<const KvPageList> lists() const { return lists_; }
  uint64_t tokens() const { return tokens_; }
  // Of them, those that the next token can attend to.
  uint64_t attended_tokens() const;
  const KvFormat& own_format() const { return layout_.own; }
  // [kv_heads], for AttentionInput and KvWriteTarget; null if the pages are not coded.
  const KvBasis* basis(uint32_t layer) const {
    return layout_.calibration == nullptr ? nullptr : layout_.calibration->layer(layer);
  }
  // The address of the first page of the corpus: equal for sequences over the same blocks. Null if
  // none is shared.
  const std::byte* first_page() const {
    return shared_.empty() ? nullptr : shared_.front().pages.front().bytes;
  }
  uint64_t bytes() const;  // of all pages, shared and own

  struct OwnBlock {
    std::span<const std::byte> bytes;
    uint32_t tokens;
  };
  // The pages grown here, in order, in the backend's memory.
  std::vector<OwnBlock> OwnBlocks() const;
  // The same where the CPU can read them; valid as long as this, or until the next call.
  Result<std::vector<OwnBlock>> HostBlocks(Backend& backend);

 private:
  void RebuildLists();
  // How many slots of a page that begins at the sequence's end are read from the sinks instead.
  uint32_t HiddenOfNext() const;

  const KvLayout layout_;
  std::vector<KvPage> sinks_;  // one or none
  BlockPrefetch* arriving_ = nullptr;
  // Neighbouring shared pages of one format.
  struct SharedRun {
    KvFormat format;
    std::vector<KvPage> pages;
  };
  std::vector<SharedRun> shared_;
  std::vector<KvPage> own_;
  std::vector<std::shared_ptr<Buffer>> buffers_;  // of own_, same order; forks have them as well
  std::vector<std::unique_ptr<Buffer>> host_;     // of HostBlocks
  std::vector<KvPageList> lists_;
  uint64_t tokens_ = 0;
};

}  // namespace corpusd
