// tests/unit/kernels/kernel_fixture.h -- random weights, activations and KV pages for kernel tests,
// all from a seed. Owned by the test; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/kv_format.h"
#include "kernels/shapes.h"
#include "kernels/weight_types.h"

namespace corpusd {

// Zeroed, 64-byte aligned.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t bytes) : storage_(bytes + 64) {}
  std::byte* data() {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    return storage_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<std::byte> storage_;
};

std::vector<float> RandomFloats(size_t count, float deviation, uint32_t seed);

// Rows of a stored type with random codes and sane scales, the same dequantized, and packed.
struct RandomWeight {
  RandomWeight(WeightType type, uint32_t rows, uint32_t cols, uint32_t seed);

  WeightType type;
  std::vector<std::byte> stored;
  std::vector<float> values;  // [rows, cols]
  std::unique_ptr<AlignedBytes> packed_bytes;
  PackedWeight packed;
};

// Pages of random keys and values, one layer: plain, or in the
// coordinates of a basis ([kv_heads], which the cq codecs need). The first page's first `hidden`
// slots are hidden.
class RandomPages {
 public:
  RandomPages(KvFormat format, const std::vector<uint32_t>& tokens, uint64_t first_position,
              const RopeTable* rope, float key_deviation, uint32_t seed,
              const KvBasis* basis = nullptr, uint32_t hidden = 0);
  KvPageList list() const { return {&format_, pages_}; }
  void AppendTiles(std::vector<PageTiles>& tiles) const;
  uint64_t end_position() const { return end_position_; }

 private:
  KvFormat format_;
  std::vector<std::unique_ptr<AlignedBytes>> blocks_;
  std::vector<KvPage> pages_;
  uint64_t end_position_;
};

// A RopeTable that owns its angles.
class TestRope {
 public:
  TestRope(uint32_t positions, uint32_t half_dim);
  const RopeTable* table() const { return &table_; }

 private:
  std::vector<float> cos_sin_;
  RopeTable table_;
};

// out (+)= x * weight^T through a table, in one task or cut into pieces.
struct MatMulCut {
  uint32_t rows = 1u << 20;
  uint32_t panels = 1u << 20;
};
void RunMatMul(const CpuKernels& kernels, MatrixView out, MatrixView x, const PackedWeight& weight,
               bool accumulate, MatMulCut cut);

struct AttentionCall {
  AttentionShape shape;
  uint64_t first_position = 0;
  std::vector<PageTiles> pages;
  const RopeTable* rope = nullptr;
  const KvBasis* basis = nullptr;  // [kv_heads]
  uint32_t call_rows = 0;          // 0: the rows given
};
// Through attend, or attend_part and merge_parts; at most rows_each query rows a task.
void RunAttention(const CpuKernels& kernels, MatrixView out, MatrixView q,
                  const AttentionCall& call, uint32_t rows_each, bool in_parts);

// Tables of this processor.
std::vector<const CpuKernels*> TestedKernels();
// Whether a table rounds the factors of its products, and of attention, to bf16.
bool MultipliesBf16(const CpuKernels& kernels);
// Whether it multiplies many rows as int16.
bool MultipliesInt16(const CpuKernels& kernels);
// Relative precision of the factors in products of a table, for weights of that kind.
double ProductPrecision(const CpuKernels& kernels, PackedKind kind, uint32_t call_rows);

}  // namespace corpusd
