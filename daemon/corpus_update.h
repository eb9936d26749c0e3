// daemon/corpus_update.h -- read, change and write back a corpus record while others do the same:
// the store refuses a stale generation, so the change is made again on the newer record. Any
// thread.
#pragma once

#include <functional>
#include <string_view>

#include "store/block_store.h"

namespace corpusd {

// change may refuse; its error is returned. It may be called several times.
Result<CorpusRecord> UpdateCorpusRecord(BlockStore& store, std::string_view name,
                                        const std::function<Status(CorpusRecord&)>& change);

}  // namespace corpusd
