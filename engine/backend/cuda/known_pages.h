// engine/backend/cuda/known_pages.h -- long lists of pages as the kernels were given them last: a
// corpus's pages are the same for all layers and steps, and looking at every one of them anew takes
// longer than attending to it. A list may end otherwise than it did: pages that were computed a
// moment ago move once they are stored. No CUDA in it. One thread.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "kernels/cuda/page.h"
#include "kernels/shapes.h"

namespace corpusd {

class KnownPages {
 public:
  // Lists of fewer pages are not kept.
  static constexpr size_t kLongList = 256;

  // Begins a step, in which nothing changes but what ends a list.
  void BeginStep();
  void Clear() { known_.clear(); }
  // RETURNS what is known of the list's first pages, valid until the next call; maybe nothing.
  std::span<const cuda::DevicePage> Find(const KvPageList& list, int64_t first_seen);
  // Keeps what the list's pages became. REQUIRES: the first ones are what Find gave for the list in
  // the call before.
  void Keep(const KvPageList& list, int64_t first_seen, std::span<const cuda::DevicePage> pages);
  size_t lists() const { return known_.size(); }

 private:
  struct Known {
    KvFormat format;
    int64_t first_seen = 0;
    std::vector<KvPage> sources;
    std::vector<cuda::DevicePage> pages;
    bool seen_in_step = false;
  };
  // How many of its pages the list begins with: all, or all but few; else 0.
  static size_t Common(const Known& known, const KvPageList& list, int64_t first_seen);

  std::list<Known> known_;  // the last ones, the last first
  size_t found_ = 0;        // of the first one, by the last Find
};

}  // namespace corpusd
