// engine/retrieval/retrieval_heads.h -- the query heads of a model whose attention finds the place
// that answers a question (retrieval heads: Wu et al. 2024, arXiv 2404.15574), and the KV heads
// whose keys they read: what an index of a corpus holds. Immutable values; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"
#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct RetrievalHead {
  uint32_t layer = 0;
  uint32_t q_head = 0;
  auto operator<=>(const RetrievalHead&) const = default;
};

// A KV head whose keys are indexed.
struct KeySource {
  uint32_t layer = 0;
  uint32_t kv_head = 0;
  auto operator<=>(const KeySource&) const = default;
};

struct HeadShape {
  uint32_t layers = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  bool operator==(const HeadShape&) const = default;
};
HeadShape HeadShapeOf(const ModelConfig& config);

class RetrievalHeads {
 public:
  // kInvalidArgument: no head, one twice, or one that the shape does not have.
  static Result<RetrievalHeads> Create(const HeadShape& shape, std::vector<RetrievalHead> heads);
  // "18.6,18.7": layer and query head. kInvalidArgument: not such names, or as Create.
  static Result<RetrievalHeads> FromNames(const HeadShape& shape, std::string_view names);
  // Those of SmolLM2-135M, found on a GPU beforehand; none of other shapes.
  static std::optional<RetrievalHeads> BuiltIn(const HeadShape& shape);

  const HeadShape& shape() const { return shape_; }
  // In the order given: the order of heads in a query's rows.
  std::span<const RetrievalHead> heads() const { return heads_; }
  // Distinct, ascending.
  std::span<const KeySource> sources() const { return sources_; }
  // Indexes of the heads that read sources()[source].
  std::span<const uint32_t> HeadsOf(uint32_t source) const { return heads_of_[source]; }
  // A question needs to be computed through this layer only to be asked.
  uint32_t last_layer() const { return sources_.back().layer; }
  // "retrieval-heads-1;30,9,3,64;18.6;18.7;": version, shape, heads.
  std::string Text() const;
  // kCorruption: not such a text.
  static Result<RetrievalHeads> FromText(std::string_view text);
  // SHA-256 of Text(): indexes of other digests hold other keys.
  const Digest& digest() const { return digest_; }

 private:
  RetrievalHeads(const HeadShape& shape, std::vector<RetrievalHead> heads);

  HeadShape shape_;
  std::vector<RetrievalHead> heads_;
  std::vector<KeySource> sources_;
  std::vector<std::vector<uint32_t>> heads_of_;
  Digest digest_;
};

}  // namespace corpusd
