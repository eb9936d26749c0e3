// Mixtures of experts on a CUDA device: rows are sent to their experts there. In two halves, so
// that devices that share the weights put the inner numbers together in between.
#include <algorithm>
#include <cstring>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/cuda_weight.h"
#include "kernels/cuda/expert_routing.h"
#include "kernels/cuda/matmul.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// A row of expert tiles is padded to so many rows: where experts have few, small tiles waste less.
uint32_t TileRows(uint32_t slots, uint32_t experts) { return slots / experts > 32 ? 64 : 32; }

}  // namespace

// The experts' weights as the kernels take them: [gate_up][down], made once.
const CudaBackend::ExpertTable* CudaBackend::TableOf(const ExpertParts& parts) {
  std::vector<cuda::DeviceWeight> views;
  const auto kind_of = [](const Weight* weight) {
    return static_cast<const CudaWeight&>(*weight).kind();
  };
  ExpertTable& table = expert_tables_[parts.gate_up.front()];
  for (const auto& weights : {parts.gate_up, parts.down}) {
    for (const Weight* const weight : weights) {
      CHECK(kind_of(weight) == kind_of(weights.front())) << "experts of one layer are alike";
      views.push_back(static_cast<const CudaWeight&>(*weight).view());
    }
  }
  const auto bytes = views.size() * sizeof(cuda::DeviceWeight);
  const bool known = table.weights != nullptr && table.views.size() == views.size() &&
                     std::memcmp(table.views.data(), views.data(), bytes) == 0;
  table.gate_up_kind = kind_of(parts.gate_up.front());
  table.down_kind = kind_of(parts.down.front());
  if (!known) {
    table.views = std::move(views);
    if (Send(&table.weights, table.views.data(), bytes) == nullptr) return nullptr;
  }
  return &table;
}

// Arrays for `slots` slots in routed_; of many rows also their order and the tiles.
cuda::RoutedSlots CudaBackend::SlotsFor(uint32_t slots, uint32_t experts, uint32_t used, bool few) {
  cuda::RoutedSlots to;
  to.used = used;
  to.tile_rows = TileRows(slots, experts);
  const uint64_t tiles = few ? 0 : cuda::ExpertTilesMax(slots, experts, to.tile_rows);
  const uint64_t array = (uint64_t{slots} * sizeof(uint32_t) + 15) / 16 * 16;
  std::byte* const memory =
      Grow(&routed_, 3 * array + tiles * sizeof(cuda::ExpertTile), "the experts of rows");
  if (memory == nullptr) return to;
  to.chosen = reinterpret_cast<uint32_t*>(memory);
  to.factors = reinterpret_cast<float*>(memory + array);
  if (few) return to;
  to.order = reinterpret_cast<uint32_t*>(memory + 2 * array);
  to.tiles = reinterpret_cast<cuda::ExpertTile*>(memory + 3 * array);
  return to;
}

MatrixView CudaBackend::RaiseExperts(const ExpertParts& parts) {
  const ExpertInput& input = parts.input;
  const uint32_t n = input.x.rows, slots = n * input.used;
  const auto experts = static_cast<uint32_t>(parts.gate_up.size());
  CHECK(input.logits.rows == n && input.logits.cols == experts && input.used <= experts &&
        experts <= cuda::kRoutedExpertsMax && parts.down.size() == experts)
      << n << " rows, " << experts << " experts";
  Begin();
  const uint32_t own = parts.gate_up.front()->rows() / 2, inner = parts.down.front()->cols();
  const bool few = n <= few_rows();
  mix_ = {};
  MatrixView gate_up = input.gate_up, activated = input.activated;
  if (!failed_.ok() || n == 0) return activated;
  mix_.table = TableOf(parts);
  mix_.routed = SlotsFor(slots, experts, input.used, few);
  if (mix_.table == nullptr || mix_.routed.chosen == nullptr ||
      !Do<cuda::RouteRows>("choose experts", mix_.routed, View(input.logits))) {
    mix_.table = nullptr;
    return activated;
  }
  if (input.used > 1) {
    // Lent memory has a row for each row; several experts of one need more.
    const uint32_t outputs = parts.down.front()->rows();
    auto* const memory = reinterpret_cast<float*>(
        Grow(&slot_rows_, uint64_t{slots} * (2 * own + inner + outputs) * sizeof(float),
             "rows of experts"));
    if (memory == nullptr) {
      mix_.table = nullptr;
      return activated;
    }
    gate_up.data = memory;
    activated = {memory + uint64_t{slots} * 2 * own, slots, inner, inner};
    mix_.results = {activated.data + uint64_t{slots} * inner, slots, outputs, outputs};
  }
  gate_up = {gate_up.data, slots, 2 * own, 2 * own};
  activated = activated.Rows(0, slots);
  cuda::MatMulCall& call = mix_.call;
  call.out = View(gate_up);
  call.x = View(input.x);
  call.experts.weights = reinterpret_cast<const cuda::DeviceWeight*>(mix_.table->weights->data());
  call.experts.chosen = mix_.routed.chosen;
  call.experts.factors = mix_.routed.factors;
  call.experts.order = mix_.routed.order;
  call.experts.tiles = mix_.routed.tiles;
  call.experts.slots = slots;
  call.experts.tile_rows = mix_.routed.tile_rows;
  call.experts.tile_count = few ? 0 : cuda::ExpertTilesMax(slots, experts, mix_.routed.tile_rows);
  call.experts.slots_of_row = input.used;
  if (Do<cuda::MatMulExperts>("multiply", call, mix_.table->gate_up_kind, few)) {
    SwiGlu(activated.Cols(parts.first, own), gate_up);
  }
  mix_.activated = activated;
  return activated;
}

void CudaBackend::LowerExperts(MatrixView out, const ExpertParts& parts) {
  Begin();
  if (!failed_.ok() || mix_.table == nullptr) return;
  CHECK(out.rows == parts.input.x.rows && out.cols == parts.down.front()->rows()) << out.cols;
  const bool one = parts.input.used == 1;
  cuda::MatMulCall& call = mix_.call;
  call.out = View(one ? out : mix_.results);
  call.x = View(mix_.activated);
  call.experts.weights += parts.gate_up.size();
  call.experts.factors = nullptr;
  call.experts.slots_of_row = 1;
  call.accumulate = one ? 1 : 0;
  const bool few = parts.input.x.rows <= few_rows();
  if (!Do<cuda::MatMulExperts>("multiply", call, mix_.table->down_kind, few) || one) return;
  Do<cuda::AddSlots>("add experts", View(out), View(mix_.results), parts.input.used);
}

void CudaBackend::MixExperts(MatrixView out, const ExpertInput& input) {
  std::vector<const Weight*> gate_up, down;
  for (const Expert& expert : input.experts) {
    gate_up.push_back(expert.gate_up.get());
    down.push_back(expert.down.get());
  }
  const ExpertParts parts{input, gate_up, down, 0};
  RaiseExperts(parts);
  LowerExperts(out, parts);
}

}  // namespace corpusd
