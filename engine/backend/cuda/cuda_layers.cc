// What the CUDA backend does beside products and attention: norms, activations, sums, and mixtures
// of experts, whose rows are sent to their experts on the device.
#include <algorithm>
#include <cstring>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/cuda_weight.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/expert_routing.h"
#include "kernels/cuda/matmul.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// A row of expert tiles is padded to so many rows: where experts have few, small tiles waste less.
uint32_t TileRows(uint32_t slots, uint32_t experts) { return slots / experts > 32 ? 64 : 32; }

}  // namespace

void CudaBackend::RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) {
  Begin();
  const auto copy = arrays_.Gain(gain, x.cols);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::RmsNormRows>("normalize", View(out), View(x), *copy, epsilon);
}

void CudaBackend::SwiGlu(MatrixView out, MatrixView gate_up) {
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  Do<cuda::SwiGluRows>("activate", View(out), View(gate_up));
}

void CudaBackend::GeGlu(MatrixView out, MatrixView gate_up) {
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  Do<cuda::GeGluRows>("activate", View(out), View(gate_up));
}

void CudaBackend::HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) {
  CHECK(x.cols % head_dim == 0) << x.cols << " columns, heads of " << head_dim;
  Begin();
  const auto copy = arrays_.Gain(gain, head_dim);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::NormHeads>("normalize heads", View(x), head_dim, *copy, epsilon);
}

void CudaBackend::ScaleRows(MatrixView x, std::span<const float> factors) {
  CHECK(factors.size() == x.rows) << factors.size() << " factors of " << x.rows << " rows";
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  const auto sent = slots_.Put(factors.data(), factors.size_bytes());
  if (!Keep(sent.status())) return;
  Do<cuda::ScaleRows>("scale rows", View(x), reinterpret_cast<const float*>(*sent));
}

void CudaBackend::AddBias(MatrixView x, const float* bias) {
  Begin();
  const auto copy = arrays_.Gain(bias, x.cols);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::AddBiasRows>("add a bias", View(x), *copy);
}

void CudaBackend::Add(MatrixView x, MatrixView y) {
  CHECK(x.rows == y.rows && x.cols == y.cols) << x.rows << " x " << x.cols;
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  Do<cuda::AddRows>("add", View(x), View(y));
}

// The experts' weights as the kernels take them: [gate_up][down], made once.
const CudaBackend::ExpertTable* CudaBackend::TableOf(std::span<const Expert> experts) {
  std::vector<cuda::DeviceWeight> views;
  const auto kind_of = [](const std::unique_ptr<Weight>& weight) {
    return static_cast<const CudaWeight&>(*weight).kind();
  };
  ExpertTable& table = expert_tables_[experts.data()];
  for (const auto part : {&Expert::gate_up, &Expert::down}) {
    for (const Expert& expert : experts) {
      CHECK(kind_of(expert.*part) == kind_of(experts[0].*part)) << "experts of one layer are alike";
      views.push_back(static_cast<const CudaWeight&>(*(expert.*part)).view());
    }
  }
  const auto bytes = views.size() * sizeof(cuda::DeviceWeight);
  const bool known = table.weights != nullptr && table.views.size() == views.size() &&
                     std::memcmp(table.views.data(), views.data(), bytes) == 0;
  table.gate_up_kind = kind_of(experts[0].gate_up);
  table.down_kind = kind_of(experts[0].down);
  if (!known) {
    table.views = std::move(views);
    if (Send(&table.weights, table.views.data(), bytes) == nullptr) return nullptr;
  }
  return &table;
}

// Arrays for `slots` slots in routed_; of many rows also their order and the tiles.
cuda::RoutedSlots CudaBackend::SlotsFor(uint32_t slots, const ExpertInput& input, bool few) {
  const auto experts = static_cast<uint32_t>(input.experts.size());
  cuda::RoutedSlots to;
  to.used = input.used;
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

void CudaBackend::MixExperts(MatrixView out, const ExpertInput& input) {
  const uint32_t n = input.x.rows, slots = n * input.used;
  const auto experts = static_cast<uint32_t>(input.experts.size());
  CHECK(out.rows == n && input.logits.rows == n && input.logits.cols == experts &&
        input.used <= experts && experts <= cuda::kRoutedExpertsMax)
      << n << " rows, " << experts << " experts";
  Begin();
  if (!failed_.ok() || n == 0) return;
  const bool few = n <= few_rows();
  const ExpertTable* const table = TableOf(input.experts);
  const cuda::RoutedSlots routed = SlotsFor(slots, input, few);
  if (table == nullptr || routed.chosen == nullptr ||
      !Do<cuda::RouteRows>("choose experts", routed, View(input.logits))) {
    return;
  }
  // Lent memory has a row for each row; several experts of one need more.
  MatrixView gate_up = input.gate_up, activated = input.activated, result = out;
  if (input.used > 1) {
    const uint32_t cols = gate_up.cols + activated.cols + out.cols;
    auto* const memory = reinterpret_cast<float*>(
        Grow(&slot_rows_, uint64_t{slots} * cols * sizeof(float), "rows of experts"));
    if (memory == nullptr) return;
    const auto take = [&](uint64_t first, uint32_t width) {
      return MatrixView{memory + first * slots, slots, width, width};
    };
    gate_up = take(0, gate_up.cols);
    activated = take(gate_up.cols, activated.cols);
    result = take(gate_up.cols + activated.cols, out.cols);
  }
  cuda::MatMulCall call;
  call.out = View(gate_up.Rows(0, slots));
  call.x = View(input.x);
  call.experts.weights = reinterpret_cast<const cuda::DeviceWeight*>(table->weights->data());
  call.experts.chosen = routed.chosen;
  call.experts.factors = routed.factors;
  call.experts.order = routed.order;
  call.experts.tiles = routed.tiles;
  call.experts.slots = slots;
  call.experts.tile_rows = routed.tile_rows;
  call.experts.tile_count = few ? 0 : cuda::ExpertTilesMax(slots, experts, routed.tile_rows);
  call.experts.slots_of_row = input.used;
  if (!Do<cuda::MatMulExperts>("multiply", call, table->gate_up_kind, few)) return;
  SwiGlu(activated.Rows(0, slots), gate_up.Rows(0, slots));
  call.out = View(result.Rows(0, slots));
  call.x = View(activated.Rows(0, slots));
  call.experts.weights += experts;
  call.experts.factors = nullptr;
  call.experts.slots_of_row = 1;
  call.accumulate = input.used == 1 ? 1 : 0;
  if (!Do<cuda::MatMulExperts>("multiply", call, table->down_kind, few)) return;
  if (input.used > 1) {
    Do<cuda::AddSlots>("add experts", View(out), View(result), input.used);
  }
}

}  // namespace corpusd
