#include "daemon/evicted_corpus.h"

#include <utility>

#include "daemon/corpus_update.h"
#include "daemon/log.h"

namespace corpusd {

std::string EvictedText(const Services& services, const CorpusRecord& record) {
  if (record.state != CorpusState::kEvicted) return "";
  const std::vector<EvictionNote> notes = services.store.EvictionNotes();
  for (auto note = notes.rbegin(); note != notes.rend(); ++note) {
    if (note->corpus_id != record.id) continue;
    std::string text = "evicted " + AgeText(services.now_ms() - note->when_ms) + " ago (" +
                       std::string(EvictionReasonText(note->reason));
    return text + (note->detail.empty() ? "" : ": " + note->detail) + ")";
  }
  return "evicted";
}

Status CheckNotEvicted(const Services& services, const std::string& name) {
  const auto record = services.store.GetCorpus(name);
  // What else is wrong with it is said by who wants it.
  if (!record.ok() || record->state != CorpusState::kEvicted) return OkStatus();
  ASSIGN_OR_RETURN(JobQueue::Place place, services.jobs.Reserve());
  const auto queued = UpdateCorpusRecord(services.store, name, [](CorpusRecord& changed) -> Status {
    if (changed.state == CorpusState::kEvicted) changed.state = CorpusState::kQueued;
    return OkStatus();
  });
  RETURN_IF_ERROR(queued.status());
  const JobRecord job = services.jobs.SubmitPrefill(name, std::move(place));
  const std::string why = EvictedText(services, *record);
  Log(LogLevel::kInfo, "evicted_corpus_wanted", {{"corpus", name}, {"job", job.id}, {"why", why}});
  return NotReadyError(
      "corpus '" + name + "' was " + why + ": " + std::to_string(record->durable_tokens) + " of " +
      std::to_string(record->tokens) + " tokens are stored. Job " + std::to_string(job.id) +
      " computes the others again: corpusctl wait " + name);
}

}  // namespace corpusd
