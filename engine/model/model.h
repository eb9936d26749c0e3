// engine/model/model.h -- the weights and layer graph of one architecture, written once over
// Backend. Immutable after loading, so any number of threads may call Forward, each with its own
// ForwardScratch and KvSequence, if the Backend's rule (one caller at a time) is kept by the
// compute gate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/kv/kv_sequence.h"
#include "engine/model/model_config.h"
#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

// Activations of one Forward of at most `rows` tokens; shared: for the CPU to look at between
// layers, after Backend::Synchronize.
class ForwardScratch {
 public:
  static Result<std::unique_ptr<ForwardScratch>> Create(Backend& backend, const ModelConfig& config,
                                                        uint32_t rows, bool shared = false);
  uint32_t rows() const { return rows_; }
  // Queries, keys and values of the layer that was computed last, none of them rotated:
  // [rows, (q_heads + 2 kv_heads) * head_dim].
  MatrixView Qkv(uint32_t rows, const ModelConfig& config) const {
    return qkv->Matrix(rows, (config.q_heads + 2 * config.kv_heads) * config.head_dim);
  }

  std::unique_ptr<Buffer> hidden, normed, qkv, attention, gate_up, activated;
  std::unique_ptr<Buffer> router, gathered, expert_result;  // of models with experts

 private:
  uint32_t rows_ = 0;
};

// Neighbouring rows of a call that go on with one sequence.
struct SequenceRows {
  KvSequence* kv = nullptr;
  uint32_t rows = 0;
};

// What a computation is for: its last hidden states, or its keys and values alone, for which the
// last layer need not attend to anything.
enum class ForwardGoal : uint8_t { kHidden, kKeysAndValues };

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  // The KV layout of this model in the named format ("bf16", "int8"); kInvalidArgument if unknown.
  virtual Result<KvFormat> Format(std::string_view name) const = 0;
  // How its layers are kept apart in a store; null: all see the same.
  const std::shared_ptr<const LayerParts>& parts() const { return parts_; }

  // Computes tokens at positions [kv.tokens(), + tokens.size()): extends kv, writes their K and V,
  // waits for the layers of its shared pages as it reaches them (an error of theirs ends it, too),
  // and leaves the final hidden states [tokens, hidden] (before the output norm) in scratch.hidden.
  // between_layers is called after every layer (to offer the compute turn, to poll for a stop);
  // false ends the computation with kCancelled, after which kv must be thrown away. REQUIRES: 1 <=
  // tokens.size() <= scratch.rows().
  virtual Status Forward(std::span<const TokenId> tokens, KvSequence& kv, ForwardScratch& scratch,
                         const std::function<bool()>& between_layers) const = 0;
  // The same for the next tokens of several sequences, packed one behind the other: what Forward of
  // each alone computes, bit for bit; scratch.hidden only if it is the goal. REQUIRES: as many rows
  // as tokens; sequences all different;
  // each of more than Backend::few_rows() rows, unless there is only one.
  virtual Status ForwardPacked(std::span<const TokenId> tokens,
                               std::span<const SequenceRows> sequences, ForwardScratch& scratch,
                               ForwardGoal goal,
                               const std::function<bool()>& between_layers) const = 0;
  // The same for one token of each of several sequences, in one pass over the weights and over the
  // pages that they share: what Forward of each alone computes, bit for bit. All layers of shared
  // pages must be there. REQUIRES: as many sequences as tokens, all different; at most
  // Backend::few_rows() of them unless that is 0.
  virtual Status ForwardEach(std::span<const TokenId> tokens,
                             std::span<KvSequence* const> sequences, ForwardScratch& scratch,
                             const std::function<bool()>& between_layers) const = 0;
  // logits [count, vocabulary] of rows [first_row, first_row + count) of scratch.hidden, into
  // memory of Backend::AllocateShared.
  virtual Status Logits(ForwardScratch& scratch, uint32_t first_row, MatrixView logits) const = 0;

 protected:
  std::shared_ptr<const LayerParts> parts_;
};

class GgufFile;
class ModelSource;

// Told after each layer how many of them are loaded.
using LoadProgress = std::function<void(uint32_t layers_done, uint32_t layers)>;

// Loads the weights, layer by layer. kInvalidArgument for files whose tensors do not fit their own
// metadata; the source need not outlive the model. on_layer: may be empty.
Result<std::unique_ptr<Model>> LoadModel(const ModelSource& source, Backend& backend,
                                         const LoadProgress& on_layer = {});
// The same of a GGUF file. kUnimplemented for an architecture that is not known.
Result<std::unique_ptr<Model>> LoadLlamaModel(const GgufFile& file, Backend& backend);

}  // namespace corpusd
