// engine/ranks/ranked_backend.h -- a rank's device as a Backend whose attention is over all ranks'
// pages: a model loaded over it computes this rank's rows of a pass, or the rows that all ranks
// have alike. Everything else is the local device's. What has gone wrong between ranks is said by
// Synchronize, and so by Model::Forward. While it has joined no ranks, and outside of Begin and
// End, it is the local device. Where several devices share the rank's weights, all of them are its
// device, and the first has the pages. Not a scheduler: who computes what is in RankedPass. One
// caller at a time, as of any Backend.
#pragma once

#include "engine/backend/forwarding_backend.h"
#include "engine/model/model_config.h"
#include "engine/ranks/ranked_attention.h"

namespace corpusd {

// How far the rows of a layer see beyond their own rank's.
struct LayerReach {
  bool whole = false;          // they see everything
  uint32_t window_tokens = 0;  // of a window; 0: a chunk, which no other rank has a part of
};
std::vector<LayerReach> ReachOf(const ModelConfig& config);

class RankedBackend final : public ForwardingBackend {
 public:
  // local must outlive this; pages: what attends, local itself or what lies below it.
  explicit RankedBackend(Backend& local) : RankedBackend(local, local) {}
  RankedBackend(Backend& local, Backend& pages) : ForwardingBackend(local), pages_(pages) {}
  RankedBackend(Backend& local, Transport& transport) : RankedBackend(local) { Join(transport); }

  // The ranks of a job, in place of those before, whatever went wrong with them. REQUIRES: what
  // attends has NodeAttention; the transport outlives this, or another takes its place.
  void Join(Transport& transport) {
    End();
    attention_ = std::make_unique<RankedAttention>(pages_, transport);
  }
  // REQUIRES: ranks have been joined.
  RankedAttention& attention() { return *attention_; }
  // Until End, layers that see everything attend together with the other ranks, and those that see
  // a window get what they see of others' rows. Every call of the model has all layers, in order.
  void Begin(const RankedPass& pass, std::vector<LayerReach> layers);
  // What went wrong was told by then: what the local device computes next has no part in it.
  void End() {
    together_ = false;
    status_ = OkStatus();
  }

  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override;
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override;
  void AttentionOfParts(MatrixView out, MatrixView q,
                        std::span<const AttentionPart> parts) override;
  // AttentionInPieces, of pages that are read in turn, sees those of this rank alone.
  Status Synchronize() override {
    if (together_ && status_.ok()) status_ = attention_->Await();
    return together_ && !status_.ok() ? status_ : local_.Synchronize();
  }

 private:
  Backend& pages_;
  std::unique_ptr<RankedAttention> attention_;
  bool Together() const;  // of the call that comes
  void CountLayer();
  std::vector<LayerReach> layers_;
  uint32_t next_layer_ = 0;
  bool together_ = false;
  Status status_;  // the first error between the ranks since Begin
};

}  // namespace corpusd
