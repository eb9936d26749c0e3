// engine/ranks/tensor_share.h -- tensor parallelism's arithmetic: which part of every matrix of a
// model one of several ranks has. Every matrix is cut by its outputs, none by its inputs: a number
// of the model is summed up by one rank, over all its inputs, in the order of one rank alone, so
// that no bit depends on how many ranks there are. (Cut by inputs, as in Megatron-LM, Shoeybi et
// al. 2019, arXiv 1909.08053, half as many exchanges would do, but sums would hang on the cut.)
// Plain data; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"
#include "store/base/result.h"

namespace corpusd {

// What a rank has of a tensor.
enum class TensorPart : uint8_t {
  kWhole,       // all of it: norms, routers
  kOwnOutputs,  // rows whose products stay with the rank: queries, keys, values, gates and ups
  kJoined,      // rows that take the inputs of all ranks and give to all: outputs and downs
  kVocabulary,  // rows of tokens: embedding and head
  kExpert,      // of each expert all or nothing
};

struct NumberRange {
  uint32_t first = 0, count = 0;
  uint32_t end() const { return first + count; }
};

class TensorShare {
 public:
  // kInvalidArgument or kUnimplemented, naming what does not divide, if the heads, the sizes or the
  // experts of the model cannot be dealt evenly. More ranks than KV heads share them: each KV head
  // is then with as many ranks, and its query heads are dealt. The vocabulary needs no evenness.
  static Result<TensorShare> Make(const ModelConfig& whole, uint32_t rank, uint32_t ranks);

  uint32_t rank() const { return rank_; }
  uint32_t ranks() const { return ranks_; }
  const ModelConfig& whole() const { return whole_; }
  // What the rank's part is as a model: fewer heads, a smaller inner size; the rest as it was. Its
  // chain root is not this one's but that of `whole`.
  const ModelConfig& config() const { return config_; }

  // tensor: by its name in ModelSource; an expert's number behind it is allowed.
  static TensorPart PartOf(std::string_view tensor);
  // Of all `rows` of a tensor, those of this rank.
  NumberRange RowsOf(std::string_view tensor, uint32_t rows) const;
  // As many rows as all ranks have together, of which `own` are this rank's.
  uint32_t WholeRows(std::string_view tensor, uint32_t own) const;

  NumberRange kv_heads() const { return kv_heads_; }
  // Whether the tiles of kv_heads() are this rank's to keep: of ranks that share one, the first
  // does.
  bool KeepsKvHeads() const;
  NumberRange VocabularyOf(uint32_t rank) const;
  NumberRange ExpertsOf(uint32_t rank) const;

 private:
  ModelConfig whole_, config_;
  uint32_t rank_ = 0, ranks_ = 1;
  NumberRange kv_heads_;
};

}  // namespace corpusd
