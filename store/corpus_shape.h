// store/corpus_shape.h -- what a corpus must be to be served by a model in a KV format: told by the
// engine, which knows both, to what checks corpora without knowing either. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/corpus_parts.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct CorpusShape {
  std::vector<IdentityField> identity;  // the tenant included
  Digest root;                          // ChainRoot(identity)
  std::string mode;
  std::string kv_format;
  uint32_t block_tokens = 0;
  uint32_t sections = 0;
  uint64_t block_bytes = 0;
  std::vector<CorpusPart> parts;  // of the longest corpus; held: none
  uint64_t tokens_max = 0;        // of a corpus
  uint32_t vocabulary = 0;        // token ids are below it
};

}  // namespace corpusd
