#include "engine/ranks/tensor_share.h"

#include <array>
#include <string>

#include "store/base/check.h"

namespace corpusd {
namespace {

struct NamedPart {
  std::string_view ending;  // of a layer's tensor
  TensorPart part;
};
constexpr std::array kLayerParts = {
    NamedPart{"attn_q.weight", TensorPart::kOwnOutputs},
    NamedPart{"attn_k.weight", TensorPart::kOwnOutputs},
    NamedPart{"attn_v.weight", TensorPart::kOwnOutputs},
    NamedPart{"attn_q.bias", TensorPart::kOwnOutputs},
    NamedPart{"attn_k.bias", TensorPart::kOwnOutputs},
    NamedPart{"attn_v.bias", TensorPart::kOwnOutputs},
    NamedPart{"attn_output.weight", TensorPart::kJoined},
    NamedPart{"ffn_gate.weight", TensorPart::kOwnOutputs},
    NamedPart{"ffn_up.weight", TensorPart::kOwnOutputs},
    NamedPart{"ffn_down.weight", TensorPart::kJoined},
    NamedPart{"ffn_gate_shexp.weight", TensorPart::kOwnOutputs},
    NamedPart{"ffn_up_shexp.weight", TensorPart::kOwnOutputs},
    NamedPart{"ffn_down_shexp.weight", TensorPart::kJoined},
    NamedPart{"ffn_gate_exps.weight", TensorPart::kExpert},
    NamedPart{"ffn_up_exps.weight", TensorPart::kExpert},
    NamedPart{"ffn_down_exps.weight", TensorPart::kExpert},
};

bool IsKeyOrValue(std::string_view tensor) {
  return tensor.find(".attn_k.") != std::string_view::npos ||
         tensor.find(".attn_v.") != std::string_view::npos;
}

Status Uneven(uint32_t ranks, uint32_t count, const std::string& what) {
  return InvalidArgumentError("the weights cannot be dealt to " + std::to_string(ranks) +
                              " ranks: the model has " + std::to_string(count) + " " + what +
                              ", which is no multiple of " + std::to_string(ranks));
}

NumberRange EvenPart(uint32_t count, uint32_t rank, uint32_t ranks) {
  return {count / ranks * rank, count / ranks};
}

}  // namespace

Result<TensorShare> TensorShare::Make(const ModelConfig& whole, uint32_t rank, uint32_t ranks) {
  CHECK(ranks > 0 && rank < ranks) << rank << " of " << ranks;
  if (whole.q_heads % ranks != 0) return Uneven(ranks, whole.q_heads, "query heads");
  if (ranks > whole.kv_heads ? ranks % whole.kv_heads != 0 : whole.kv_heads % ranks != 0) {
    return InvalidArgumentError("the weights cannot be dealt to " + std::to_string(ranks) +
                                " ranks: the model has " + std::to_string(whole.kv_heads) +
                                " KV heads, and neither number is a multiple of the other");
  }
  if (whole.hidden % ranks != 0) return Uneven(ranks, whole.hidden, "hidden numbers");
  if (whole.experts % ranks != 0) return Uneven(ranks, whole.experts, "experts");
  TensorShare share;
  share.whole_ = share.config_ = whole;
  share.rank_ = rank;
  share.ranks_ = ranks;
  ModelConfig& own = share.config_;
  own.q_heads /= ranks;
  own.kv_heads = ranks > whole.kv_heads ? 1 : whole.kv_heads / ranks;
  own.feed_forward /= ranks;
  for (LayerConfig& layer : own.layer_configs) {
    if (layer.feed_forward % ranks != 0) {
      return Uneven(ranks, layer.feed_forward, "inner numbers of a feed-forward part");
    }
    layer.feed_forward /= ranks;
  }
  share.kv_heads_ = {static_cast<uint32_t>(uint64_t{rank} * whole.kv_heads / ranks), own.kv_heads};
  return share;
}

TensorPart TensorShare::PartOf(std::string_view tensor) {
  const std::string_view name = tensor.substr(0, tensor.find('['));
  if (name == "token_embd.weight" || name == "output.weight") return TensorPart::kVocabulary;
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return TensorPart::kWhole;
  const size_t dot = name.find('.', kBlock.size());
  for (const NamedPart& named : kLayerParts) {
    if (name.substr(dot + 1) == named.ending) return named.part;
  }
  return TensorPart::kWhole;
}

NumberRange TensorShare::RowsOf(std::string_view tensor, uint32_t rows) const {
  switch (PartOf(tensor)) {
    case TensorPart::kOwnOutputs:
      if (!IsKeyOrValue(tensor)) return EvenPart(rows, rank_, ranks_);
      return {kv_heads_.first * whole_.head_dim, kv_heads_.count * whole_.head_dim};
    case TensorPart::kJoined:
      return EvenPart(rows, rank_, ranks_);
    case TensorPart::kVocabulary:
      return VocabularyOf(rank_);
    case TensorPart::kWhole:
    case TensorPart::kExpert:
      break;
  }
  return {0, rows};
}

uint32_t TensorShare::WholeRows(std::string_view tensor, uint32_t own) const {
  if (PartOf(tensor) != TensorPart::kOwnOutputs) return own;
  return IsKeyOrValue(tensor) ? whole_.kv_heads * whole_.head_dim : own * ranks_;
}

bool TensorShare::KeepsKvHeads() const {
  return ranks_ <= whole_.kv_heads || rank_ % (ranks_ / whole_.kv_heads) == 0;
}

NumberRange TensorShare::VocabularyOf(uint32_t rank) const {
  const auto first = [&](uint64_t r) {
    return static_cast<uint32_t>(r * whole_.vocabulary / ranks_);
  };
  return {first(rank), first(uint64_t{rank} + 1) - first(rank)};
}

NumberRange TensorShare::ExpertsOf(uint32_t rank) const {
  return EvenPart(whole_.experts, rank, ranks_);
}

}  // namespace corpusd
