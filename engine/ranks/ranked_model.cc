#include "engine/ranks/ranked_model.h"

#include <vector>

namespace corpusd {
namespace {

class RankedModel final : public Model {
 public:
  explicit RankedModel(std::unique_ptr<Model> local) : local_(std::move(local)) {
    parts_ = local_->parts();
  }

  const ModelConfig& config() const override { return local_->config(); }
  Result<KvFormat> Format(std::string_view name) const override { return local_->Format(name); }
  Status Forward(std::span<const TokenId> tokens, KvSequence& kv, ForwardScratch& scratch,
                 const std::function<bool()>& between_layers) const override {
    if (kv.twin() == nullptr) return local_->Forward(tokens, kv, scratch, between_layers);
    const SequenceRows all{&kv, static_cast<uint32_t>(tokens.size())};
    return Together(false, tokens, {&all, 1}, between_layers, [&](const auto& between) {
      return local_->Forward(tokens, kv, scratch, between);
    });
  }
  Status ForwardPacked(std::span<const TokenId> tokens, std::span<const SequenceRows> sequences,
                       ForwardScratch& scratch, ForwardGoal goal,
                       const std::function<bool()>& between_layers) const override {
    if (sequences.front().kv->twin() == nullptr) {
      return local_->ForwardPacked(tokens, sequences, scratch, goal, between_layers);
    }
    // The others are not told of a goal.
    return Together(false, tokens, sequences, between_layers, [&](const auto& between) {
      return local_->ForwardPacked(tokens, sequences, scratch, ForwardGoal::kHidden, between);
    });
  }
  Status ForwardEach(std::span<const TokenId> tokens, std::span<KvSequence* const> sequences,
                     ForwardScratch& scratch,
                     const std::function<bool()>& between_layers) const override {
    if (sequences.front()->twin() == nullptr) {
      return local_->ForwardEach(tokens, sequences, scratch, between_layers);
    }
    std::vector<SequenceRows> rows;
    for (KvSequence* const kv : sequences) rows.push_back({kv, 1});
    return Together(true, tokens, rows, between_layers, [&](const auto& between) {
      return local_->ForwardEach(tokens, sequences, scratch, between);
    });
  }
  Status Logits(ForwardScratch& scratch, uint32_t first_row, MatrixView logits) const override {
    return local_->Logits(scratch, first_row, logits);
  }

 private:
  template <typename Compute>
  Status Together(bool each, std::span<const TokenId> tokens,
                  std::span<const SequenceRows> sequences,
                  const std::function<bool()>& between_layers, const Compute& compute) const {
    for (const SequenceRows& one : sequences) {
      CHECK(one.kv->twin() != nullptr) << "sequences here and on all ranks do not mix";
    }
    bool wanted = true;
    const std::function<bool()> between = [&] {
      wanted = between_layers() && wanted;
      return true;
    };
    auto& twin = static_cast<RankedTwin&>(*sequences.front().kv->twin());
    RETURN_IF_ERROR(twin.Pass(each, tokens, sequences, [&] { return compute(between); }));
    return wanted ? OkStatus() : CancelledError("the computation was stopped");
  }

  const std::unique_ptr<Model> local_;
};

}  // namespace

std::unique_ptr<Model> MakeRankedModel(std::unique_ptr<Model> local) {
  return std::make_unique<RankedModel>(std::move(local));
}

}  // namespace corpusd
