#include "engine/kv/history_pieces.h"

#include <algorithm>

namespace corpusd {

HistoryPieces::HistoryPieces(const KvSequence& kv, uint32_t layer)
    : kv_(kv),
      reader_(*kv.history()->reader),
      section_(kv.place(layer).index),
      before_(kv.sink_pages() + kv.history()->first_page),
      streamed_(kv.history()->pages) {
  for (const KvPageList& list : kv_.lists()) pages_ += list.pages.size();
  groups_ = (streamed_ + reader_.slot_blocks() - 1) / reader_.slot_blocks();
  CHECK(before_ % kPartPages == 0 && reader_.slot_blocks() % kPartPages == 0)
      << before_ << " pages before the history";
  BeginGroup(0);
}

HistoryPieces::~HistoryPieces() {
  for (uint32_t slot = 0; slot < SectionReader::kSlots; ++slot) (void)reader_.Wait(slot);
}

size_t HistoryPieces::GroupBlocks(size_t group) const {
  return std::min(reader_.slot_blocks(), streamed_ - group * reader_.slot_blocks());
}

void HistoryPieces::BeginGroup(size_t group) {
  if (group >= groups_) return;
  reader_.Begin(static_cast<uint32_t>(group % SectionReader::kSlots), group * reader_.slot_blocks(),
                GroupBlocks(group), section_);
  begun_ = group + 1;
}

void HistoryPieces::Cut(size_t first, size_t end) {
  cut_.clear();
  lists_.clear();
  size_t list_first = 0;
  for (const KvPageList& list : kv_.lists()) {
    const size_t from = std::max(first, list_first),
                 to = std::min(end, list_first + list.pages.size());
    if (from < to) {
      const auto pages = list.pages.subspan(from - list_first, to - from);
      cut_.emplace_back(pages.begin(), pages.end());
      lists_.push_back({list.format, {}});
    }
    list_first += list.pages.size();
  }
  for (size_t i = 0; i < lists_.size(); ++i) lists_[i].pages = cut_[i];
}

Result<std::span<const KvPageList>> HistoryPieces::Next() {
  if (!before_out_) {
    before_out_ = true;
    if (before_ > 0) {
      Cut(0, before_);
      return std::span<const KvPageList>(lists_);
    }
  }
  if (next_ == groups_) return std::span<const KvPageList>();
  const size_t group = next_++;
  RETURN_IF_ERROR(reader_.Wait(static_cast<uint32_t>(group % SectionReader::kSlots)));
  // Nobody reads the other slot any more: its pages were those of the piece before.
  BeginGroup(group + 1);
  const size_t first = group * reader_.slot_blocks();
  // The last one takes what is in memory behind it along, so that parts end where they always do.
  const bool last = next_ == groups_;
  Cut(before_ + first, last ? pages_ : before_ + first + GroupBlocks(group));
  for (size_t i = 0; i < GroupBlocks(group); ++i) {
    cut_.front()[i].bytes = reader_.block(static_cast<uint32_t>(group % SectionReader::kSlots), i);
  }
  return std::span<const KvPageList>(lists_);
}

}  // namespace corpusd
