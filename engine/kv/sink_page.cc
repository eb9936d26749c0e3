#include "engine/kv/sink_page.h"

namespace corpusd {
namespace {

// A page of SmolLM2 takes 3 MB; corpora of one preamble share theirs.
constexpr size_t kPagesMax = 16;

}  // namespace

std::shared_ptr<const SinkPage> SinkPages::Find(const Digest& key) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->key != key) continue;
    entries_.splice(entries_.begin(), entries_, entry);
    return entry->page;
  }
  return nullptr;
}

void SinkPages::Keep(const Digest& key, std::shared_ptr<const SinkPage> page) {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_.push_front({key, std::move(page)});
  if (entries_.size() > kPagesMax) entries_.pop_back();
}

}  // namespace corpusd
