// tests/support/corrupt_block.h -- damages a stored block behind the store's back, as a bad disk
// would. Works on a data folder that no process holds.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/status.h"
#include "store/prefix_hash.h"

namespace corpusd {

// Flips the lowest bit of one payload byte of the corpus's block in every stored copy.
// kFailedPrecondition if the folder is in use, kNotFound if there is no such block.
Status CorruptBlock(const std::string& data_dir, const std::string& corpus, uint64_t block,
                    uint64_t payload_byte);

// The same of the block with this digest, be it a chain's or a part.
Status CorruptDigest(const std::string& data_dir, const Digest& digest, uint64_t payload_byte);

}  // namespace corpusd
