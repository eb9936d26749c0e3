// tests/support/older_folder.h -- makes a closed data folder what an older schema wrote, for tests
// of reading such. Only the catalogue: blocks of schema 1 are payload_store_test.cc's.
#pragma once

#include <string>

#include "store/base/status.h"

namespace corpusd {

// Chains a row a block, extents without counts, no sums of token ids, no list of the quarantined.
Status MakeOlderCatalog(const std::string& data_dir, const std::string& schema);

}  // namespace corpusd
