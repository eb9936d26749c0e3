// The catalogue's eviction notes: joined and forgotten so that their number stays bounded.
#include <algorithm>
#include <iterator>

#include "store/catalog.h"

namespace corpusd {
namespace {

bool Older(const EvictionNote& a, const EvictionNote& b) { return a.when_ms < b.when_ms; }

// One note that says of both ranges what the later of them says; `low` lies before `high`.
EvictionNote Joined(const EvictionNote& low, const EvictionNote& high) {
  EvictionNote note = Older(low, high) ? high : low;
  note.first_block = low.first_block;
  note.first_digest = low.first_digest;
  note.blocks =
      std::max(low.first_block + low.blocks, high.first_block + high.blocks) - low.first_block;
  note.bytes = low.bytes + high.bytes;
  return note;
}

}  // namespace

std::vector<EvictionNote> Catalog::EvictionNotes() const {
  std::vector<EvictionNote> notes;
  for (const auto& [key, note] : notes_) notes.push_back(note);
  std::stable_sort(notes.begin(), notes.end(), Older);
  return notes;
}

void Catalog::NoteEviction(EvictionNote note, Change* change) const {
  const uint64_t id = note.corpus_id;
  std::map<NoteKey, EvictionNote> own;
  const auto drop = [&](const NoteKey& key) {
    change->DropNote(key);
    own.erase(key);
  };
  for (auto it = notes_.lower_bound({id, 0}); it != notes_.end() && it->first.first == id; ++it) {
    own.insert(*it);
  }
  // What is evicted once more was built again since: the older note tells of another time.
  const uint64_t end = note.first_block + note.blocks;
  for (auto it = own.lower_bound({id, note.first_block}); it != own.end();) {
    const NoteKey key = (it++)->first;
    if (own.at(key).first_block < end) drop(key);
  }
  own[{id, note.first_block}] = note;
  change->PutNote(note);
  while (own.size() > kEvictionNotesPerCorpus) {
    const auto high = std::prev(own.end());
    const auto low = std::prev(high);
    const EvictionNote joined = Joined(low->second, high->second);
    low->second = joined;
    change->PutNote(joined);
    drop(high->first);
  }
  // Each call adds one note at most, so forgetting one keeps the number.
  if (notes_.size() + change->notes_.size() <= kEvictionNotesMax + change->dropped_notes_.size()) {
    return;
  }
  const EvictionNote* oldest = nullptr;
  for (const auto& [key, other] : notes_) {
    if (change->dropped_notes_.contains(key)) continue;
    if (oldest == nullptr || Older(other, *oldest)) oldest = &other;
  }
  if (oldest != nullptr) change->DropNote({oldest->corpus_id, oldest->first_block});
}

void Catalog::ApplyNotes(const Change& change) {
  for (const NoteKey& key : change.dropped_notes_) notes_.erase(key);
  for (const auto& [key, note] : change.notes_) notes_.insert_or_assign(key, note);
}

}  // namespace corpusd
