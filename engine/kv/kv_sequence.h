// engine/kv/kv_sequence.h -- the pages one computation attends to: shared ones of the store, in the
// corpus's format, then its own, which grow. Knows where every new token's K and V go. Owns its own
// pages; the leases of shared pages are the caller's and must outlive it. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/kv/kv_layout.h"
#include "kernels/shapes.h"
#include "store/base/result.h"
#include "store/block_prefetch.h"
#include "store/section_reader.h"

namespace corpusd {

// What goes where a sequence goes, such as the same one on other ranks. It ends with the sequence.
class SequenceTwin {
 public:
  virtual ~SequenceTwin() = default;
  // Sequences of one group may be computed in one call of a model.
  virtual const void* group() const = 0;
  // Of a sequence that goes on from where this one is.
  virtual std::shared_ptr<SequenceTwin> Fork() = 0;
};

class KvSequence {
 public:
  // layout.blocks: of the pages added by AddShared. layout.own: of the pages it grows. With sinks,
  // the first page's tokens that they stand for are written but not read. layout.parts: every page
  // is in so many pieces, one for each part's layers.
  explicit KvSequence(const KvLayout& layout);
  // Pages that are not coded, of all layers together.
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
    // Of the parts after the first, whose bytes `bytes` are; null: not there, and before all that
    // its layers will see. As many as there are, or none.
    std::span<const std::byte* const> others = {};
  };
  void AddShared(const SharedPage& page) { AddShared(layout_.blocks, page); }
  void AddShared(std::span<const SharedPage> pages);
  // The same for a page of another format, such as exact first tokens before a coded history.
  void AddShared(const KvFormat& format, const SharedPage& page);
  // The part's shared pages are still on their way: their blocks' sections arrive in order, and
  // hold its layers in order. Null: all there.
  void Follow(BlockPrefetch* arriving, uint32_t part = 0) { parts_[part].arriving = arriving; }
  // Whether layer i of every shared page can be read; waits until it can, or says why it never can.
  bool HasLayer(uint32_t layer) const {
    BlockPrefetch* const arriving = parts_[place(layer).part].arriving;
    return arriving == nullptr || arriving->HasSection(SectionOf(layer));
  }
  Status WaitLayer(uint32_t layer) const {
    BlockPrefetch* const arriving = parts_[place(layer).part].arriving;
    return arriving == nullptr ? OkStatus() : arriving->WaitSection(SectionOf(layer));
  }
  // Shared pages of part 0 that are not in memory: from this one on so many. Behind them come own
  // pages only. The reader reads their blocks.
  struct History {
    SectionReader* reader = nullptr;
    size_t first_page = 0, pages = 0;
  };
  void ReadInTurn(const History& history) { history_ = history; }
  const History* history() const { return history_.reader == nullptr ? nullptr : &history_; }
  void Join(std::shared_ptr<SequenceTwin> twin) { twin_ = std::move(twin); }
  SequenceTwin* twin() const { return twin_.get(); }  // null: it is here alone
  size_t sink_pages() const { return parts_.front().sinks.size(); }
  // A second sequence that goes on from here: full pages are shared by both, the last own page is
  // copied if it has room. The lists are alike, so both compute the same bits.
  Result<std::unique_ptr<KvSequence>> Fork(Backend& backend) const;
  // Adds a page that another sequence of this layout has filled. REQUIRES: one part, no shared
  // page, and no room in the last own page.
  void AddOwn(std::shared_ptr<Buffer> page);
  // Own pages by number, to be added elsewhere. REQUIRES: one part; they are full.
  std::vector<std::shared_ptr<Buffer>> OwnPages(size_t first, size_t count) const;
  // Makes room for `count` more tokens behind the last one, zeroed.
  Status Extend(Backend& backend, uint32_t count);

  struct Target {
    std::byte* block;
    uint32_t first_slot;
    uint32_t rows;
  };
  // Where the last `count` tokens go, in order. REQUIRES: they came by Extend.
  std::vector<Target> TargetsOfLast(uint32_t count, uint32_t part = 0) const;
  Target TargetOfLast(uint32_t part) const;

  uint32_t layers() const { return layout_.own.layers; }
  uint32_t parts() const { return static_cast<uint32_t>(parts_.size()); }
  LayerPlace place(uint32_t layer) const {
    return layout_.parts == nullptr ? LayerPlace{0, layer} : layout_.parts->places[layer];
  }
  // For AttentionInput of the part's layers; valid until the next AddShared or Extend.
  std::span<const KvPageList> lists(uint32_t part = 0) const { return parts_[part].lists; }
  uint64_t tokens() const { return tokens_; }
  // Of them, those that the next token can attend to on the layers of part 0.
  uint64_t attended_tokens() const;
  const KvFormat& own_format(uint32_t part = 0) const { return parts_[part].own_format; }
  // [kv_heads], for AttentionInput and KvWriteTarget; null if the pages are not coded.
  const KvBasis* basis(uint32_t layer) const {
    return layout_.calibration == nullptr ? nullptr : layout_.calibration->layer(layer);
  }
  // The address of the first page of the corpus: equal for sequences over the same blocks. Null if
  // none is shared.
  const std::byte* first_page() const {
    const auto& shared = parts_.front().shared;
    return shared.empty() ? nullptr : shared.front().pages.front().bytes;
  }
  uint64_t bytes() const;  // of all pages, shared and own

  struct OwnBlock {
    std::span<const std::byte> bytes;  // StoredBytes of the part's format
    uint32_t tokens;
  };
  // The pages grown here, in order, in the backend's memory.
  std::vector<OwnBlock> OwnBlocks(uint32_t part = 0) const;
  // The same where the CPU can read them; valid as long as this, or until the next call. REQUIRES:
  // the backend was synchronized since they were computed.
  Result<std::vector<OwnBlock>> HostBlocks(Backend& backend, uint32_t part = 0);

 private:
  void RebuildLists();
  // Adds a shared page to all but the lists.
  void Append(const KvFormat& format, const SharedPage& page);
  // Of a stored block, the last section that the layer's keys and values are in.
  uint32_t SectionOf(uint32_t layer) const;
  // How many slots of a page that begins at the sequence's end are read from the sinks instead.
  uint32_t HiddenOfNext() const;

  // Neighbouring shared pages of one format.
  struct SharedRun {
    KvFormat format;
    std::vector<KvPage> pages;
  };
  // The pieces of all pages that hold one part's layers; of every part as many.
  struct Part {
    KvFormat own_format, sink_format;
    std::vector<KvPage> sinks;  // one or none
    std::vector<SharedRun> shared;
    std::vector<KvPage> own;
    std::vector<std::shared_ptr<Buffer>> buffers;  // of own, same order; forks have them as well
    std::unique_ptr<Buffer> host;                  // of HostBlocks
    std::vector<KvPageList> lists;
    BlockPrefetch* arriving = nullptr;
  };

  const KvLayout layout_;
  std::vector<Part> parts_;
  History history_;
  uint64_t tokens_ = 0;
  std::shared_ptr<SequenceTwin> twin_;
};

}  // namespace corpusd
