// daemon/evicted_corpus.h -- corpora whose blocks left the disk: they keep name and tokens, and are
// computed again when somebody wants them. Any thread; may wait for the disk.
#pragma once

#include <string>

#include "daemon/rpc/services.h"

namespace corpusd {

// "evicted 3 min ago (for corpus 'b'; priority low, ...)", by the last note of it; "" if the corpus
// is not evicted.
std::string EvictedText(const Services& services, const CorpusRecord& record);

// Ok unless the corpus is evicted. Then a job to compute it again is begun, or found, and RETURNS
// kNotReady: what left, when and why, and which job brings it back. No question waits for that.
Status CheckNotEvicted(const Services& services, const std::string& name);

}  // namespace corpusd
