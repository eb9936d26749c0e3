// tests/bench/shared_sequences.h -- sequences of a bench that read one corpus, as questions do, for
// steps of several at once. The corpus keeps its blocks; the caller keeps the corpus.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tests/eval/model_session.h"

namespace corpusd {

// `count` sequences of `layout` that read the blocks of `corpus` and own none yet. `corpus` must
// outlive them.
inline std::vector<std::unique_ptr<KvSequence>> SharedSequences(const KvLayout& layout,
                                                                const KvSequence& corpus,
                                                                uint32_t count) {
  std::vector<std::unique_ptr<KvSequence>> sequences;
  for (uint32_t i = 0; i < count; ++i) {
    sequences.push_back(std::make_unique<KvSequence>(layout));
    for (const auto& block : corpus.OwnBlocks()) {
      sequences.back()->AddShared(block.bytes.data(), block.tokens);
    }
  }
  return sequences;
}

}  // namespace corpusd
