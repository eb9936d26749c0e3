#include "engine/backend/cuda/known_pages.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {
namespace {

// As many as questions decode together.
constexpr size_t kKnownMax = 20;
// Pages at the end of a list that may become others: more than one call of a prefill computes.
constexpr size_t kEndPages = 256;

bool Same(const KvPage& a, const KvPage& b) {
  return a.bytes == b.bytes && a.first_position == b.first_position && a.tokens == b.tokens &&
         a.hidden == b.hidden;
}

}  // namespace

void KnownPages::BeginStep() {
  for (Known& known : known_) known.seen_in_step = false;
}

size_t KnownPages::Common(const Known& known, const KvPageList& list, int64_t first_seen) {
  const size_t count = known.sources.size(), shorter = std::min(count, list.pages.size());
  if (!(known.format == *list.format) || known.first_seen != first_seen || shorter < kLongList ||
      !Same(known.sources.front(), list.pages.front())) {
    return 0;
  }
  if (known.seen_in_step && count == list.pages.size() &&
      Same(known.sources.back(), list.pages.back())) {
    return count;
  }
  // One that ends otherwise and much earlier is another list; its pages need not be looked at.
  if (count - shorter > kEndPages) return 0;
  const size_t must = count - std::min(count, kEndPages);
  if (must > 0 && !Same(known.sources[must - 1], list.pages[must - 1])) return 0;
  const auto end =
      std::mismatch(known.sources.begin(), known.sources.begin() + static_cast<ptrdiff_t>(shorter),
                    list.pages.begin(), Same);
  const auto common = static_cast<size_t>(end.first - known.sources.begin());
  return common < must || common < kLongList ? 0 : common;
}

std::span<const cuda::DevicePage> KnownPages::Find(const KvPageList& list, int64_t first_seen) {
  found_ = 0;
  const auto found = std::ranges::find_if(known_, [&](const Known& known) {
    found_ = Common(known, list, first_seen);
    return found_ > 0;
  });
  if (found == known_.end()) return {};
  known_.splice(known_.begin(), known_, found);
  Known& known = known_.front();
  if (found_ < known.sources.size()) {
    known.sources.resize(found_);
    known.pages.resize(found_);
    known.seen_in_step = false;
  }
  return known.pages;
}

void KnownPages::Keep(const KvPageList& list, int64_t first_seen,
                      std::span<const cuda::DevicePage> pages) {
  if (pages.size() < kLongList) return;
  CHECK(pages.size() == list.pages.size() && found_ <= pages.size()) << pages.size();
  if (found_ == 0) {
    if (known_.size() == kKnownMax) known_.pop_back();
    known_.push_front({*list.format, first_seen, {}, {}, false});
  }
  Known& known = known_.front();
  known.seen_in_step = true;
  const auto old = static_cast<ptrdiff_t>(found_);
  known.sources.insert(known.sources.end(), list.pages.begin() + old, list.pages.end());
  known.pages.insert(known.pages.end(), pages.begin() + old, pages.end());
  found_ = 0;
}

}  // namespace corpusd
