#include "daemon/corpus_update.h"

#include <string>

namespace corpusd {
namespace {

// A prefill publishes a few times a second at most, so losing this often in a row is no accident.
constexpr int kAttempts = 100;

}  // namespace

Result<CorpusRecord> UpdateCorpusRecord(BlockStore& store, std::string_view name,
                                        const std::function<Status(CorpusRecord&)>& change) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(CorpusRecord record, store.GetCorpus(name));
    RETURN_IF_ERROR(change(record));
    Result<CorpusRecord> updated = store.UpdateCorpus(record);
    if (updated.ok() || updated.status().code() != StatusCode::kAborted) return updated;
  }
  return UnavailableError("corpus '" + std::string(name) + "' changes too fast; try again");
}

}  // namespace corpusd
