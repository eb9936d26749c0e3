// engine/kv/sink_page.h -- the first tokens of a coded chain, exact. They draw attention whatever
// they say, so an error of theirs reaches every answer; four tokens in bf16 cure that (attention
// sinks: Xiao et al. 2023, arXiv 2309.17453). They are not stored: one small forward pass makes
// them again, the same bits each time on a machine. Immutable; any thread.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/backend/buffer.h"
#include "kernels/kv_format.h"
#include "store/prefix_hash.h"

namespace corpusd {

inline constexpr uint32_t kSinkTokens = 4;

struct SinkPage {
  KvFormat format;  // bf16, in the coordinates of the chain's calibration; of all layers
  std::vector<std::unique_ptr<Buffer>> parts;  // as the layout keeps layers apart
  uint32_t tokens = 0;
  std::vector<uint32_t> ids;  // [tokens]
};

// The pages in use, by the tokens they begin with. Thread-safe.
class SinkPages {
 public:
  // The page kept for this key, or null.
  std::shared_ptr<const SinkPage> Find(const Digest& key) const;
  // Keeps it; what was not used for longest goes when there are more than a few.
  void Keep(const Digest& key, std::shared_ptr<const SinkPage> page);

 private:
  struct Entry {
    Digest key;
    std::shared_ptr<const SinkPage> page;
  };
  mutable std::mutex mutex_;
  mutable std::list<Entry> entries_;  // the last used first
};

}  // namespace corpusd
