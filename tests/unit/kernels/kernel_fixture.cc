#include "tests/unit/kernels/kernel_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"

namespace corpusd {
namespace {

constexpr uint16_t kHalfScale = 0x2418;    // about 0.016
constexpr uint16_t kHalfMinimum = 0xac40;  // about -0.066

void PutHalf(std::byte* p, uint16_t half, uint32_t noise) {
  const auto value = static_cast<uint16_t>(half + noise % 200);
  std::memcpy(p, &value, 2);
}

// Random codes would make random scales, most of them absurd: these are set to small ones.
void SetScales(WeightType type, std::byte* block, std::mt19937& random) {
  switch (type) {
    case WeightType::kQ4_1:
    case WeightType::kQ5_1:
      PutHalf(block + 2, kHalfMinimum, random());
      PutHalf(block, kHalfScale, random());
      return;
    case WeightType::kQ4_K:
    case WeightType::kQ5_K:
      PutHalf(block + 2, kHalfScale, random());
      PutHalf(block, kHalfScale, random());
      return;
    case WeightType::kQ6_K:
      PutHalf(block + 208, kHalfScale, random());
      return;
    default:
      PutHalf(block, kHalfScale, random());
      return;
  }
}

// Rows of one KV head from slot 0 of a tile on; rows.coordinates null: as they are.
void WriteRows(std::byte* tile, const KvFormat& format, bool is_key, const KvRows& rows) {
  const KvCodec codec = is_key ? format.key_codec : format.value_codec;
  if (IsCoded(codec)) {  // by a table, all of which give the reference's bytes, for speed
    const CpuKernels* kernels = TestedKernels().back();
    AlignedBytes scratch(kernels->encode_scratch_bytes(rows.head_dim));
    return kernels->encode_tile(
        {.tile = tile, .codec = codec, .is_key = is_key, .rows = rows, .scratch = scratch.data()});
  }
  std::vector<float> y(size_t{rows.rows} * rows.head_dim);
  if (rows.coordinates != nullptr) ReferenceToCoordinates(y.data(), rows);
  for (uint32_t t = 0; t < rows.rows; ++t) {
    const float* row = rows.coordinates == nullptr ? rows.row(t) : &y[size_t{t} * rows.head_dim];
    if (is_key) {
      WriteKey(tile, format, t, row, rows.coordinates == nullptr ? rows.rope : nullptr);
    } else {
      WriteValue(tile, format, t, row);
    }
  }
}

}  // namespace

std::vector<float> RandomFloats(size_t count, float deviation, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

RandomWeight::RandomWeight(WeightType weight_type, uint32_t rows, uint32_t cols, uint32_t seed)
    : type(weight_type), values(size_t{rows} * cols) {
  const WeightTypeInfo* info = FindWeightType(static_cast<uint32_t>(type));
  const uint64_t row_bytes = WeightRowBytes(type, cols);
  stored.resize(row_bytes * rows);
  std::mt19937 random(seed);
  for (std::byte& byte : stored) byte = static_cast<std::byte>(random());
  const std::vector<float> floats = RandomFloats(values.size(), 0.05f, seed);
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == WeightType::kF32) std::memcpy(&stored[i * 4], &floats[i], 4);
    if (type == WeightType::kF16) PutHalf(&stored[i * 2], kHalfMinimum, random());
    if (type == WeightType::kBf16) {
      const uint16_t bits = Bf16FromFloat(floats[i]);
      std::memcpy(&stored[i * 2], &bits, 2);
    }
  }
  if (info->block_elements > 1) {
    for (size_t i = 0; i < stored.size(); i += info->block_bytes) {
      SetScales(type, &stored[i], random);
    }
  }
  const PackedKind kind = PackedKindFor(type);
  packed = {.panel_bytes = PackedPanelBytes(kind, cols), .kind = kind, .rows = rows, .cols = cols};
  packed_bytes = std::make_unique<AlignedBytes>(packed.panel_bytes * packed.panels());
  packed.data = packed_bytes->data();
  std::vector<float> scratch(cols);
  for (uint32_t r = 0; r < rows; ++r) {
    DequantizeRow(type, &stored[r * row_bytes], &values[size_t{r} * cols], cols);
    PackRow(packed_bytes->data(), kind, r, cols, type, &stored[r * row_bytes], scratch.data());
  }
}

RandomPages::RandomPages(KvFormat format, const std::vector<uint32_t>& tokens,
                         uint64_t first_position, const RopeTable* rope, float key_deviation,
                         uint32_t seed, const KvBasis* basis, uint32_t hidden)
    : format_(format), end_position_(first_position) {
  const uint32_t width = format.kv_heads * format.head_dim;
  for (const uint32_t count : tokens) {
    blocks_.push_back(std::make_unique<AlignedBytes>(format.BlockBytes()));
    std::byte* block = blocks_.back()->data();
    const std::vector<float> keys = RandomFloats(size_t{count} * width, key_deviation, ++seed);
    const std::vector<float> values = RandomFloats(size_t{count} * width, 1.0f, ++seed);
    for (uint32_t h = 0; h < format.kv_heads; ++h) {
      KvRows rows{.data = keys.data() + size_t{h} * format.head_dim,
                  .stride = width,
                  .rows = count,
                  .head_dim = format.head_dim,
                  .rope = rope,
                  .coordinates = basis == nullptr ? nullptr : &basis[h].key};
      WriteRows(block + format.KeyTileOffset(0, h), format, true, rows);
      rows.data = values.data() + size_t{h} * format.head_dim;
      rows.rope = nullptr;
      if (basis != nullptr) rows.coordinates = &basis[h].value;
      WriteRows(block + format.ValueTileOffset(0, h), format, false, rows);
    }
    pages_.push_back({block, end_position_, count, pages_.empty() ? hidden : 0});
    end_position_ += count;
  }
}

void RandomPages::AppendTiles(std::vector<PageTiles>& tiles) const {
  for (const KvPage& page : pages_) {
    tiles.push_back({.keys = page.bytes + format_.KeyTileOffset(0, 0),
                     .values = page.bytes + format_.ValueTileOffset(0, 0),
                     .key_stride = format_.KeyTileBytes(0),
                     .value_stride = format_.ValueTileBytes(0),
                     .first_position = page.first_position,
                     .tokens = page.tokens,
                     .hidden = page.hidden,
                     .key_codec = format_.key_codec,
                     .value_codec = format_.value_codec});
  }
}

TestRope::TestRope(uint32_t positions, uint32_t half_dim) {
  for (uint32_t d = 0; d < positions; ++d) {
    for (uint32_t j = 0; j < half_dim; ++j) {
      const double angle = d * std::pow(10000.0, -static_cast<double>(j) / half_dim);
      cos_sin_.push_back(static_cast<float>(std::cos(angle)));
      cos_sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  table_ = {cos_sin_.data(), positions, half_dim};
}

void RunMatMul(const CpuKernels& kernels, MatrixView out, MatrixView x, const PackedWeight& weight,
               bool accumulate, MatMulCut cut) {
  AlignedBytes prepared(kernels.prepared_bytes(x.rows, x.cols));
  AlignedBytes scratch(kernels.matmul_scratch_bytes());
  kernels.prepare_rows(prepared.data(), x.data, x.row_stride, x.cols, x.rows, 0, x.rows);
  for (uint32_t r = 0; r < x.rows; r += std::min(cut.rows, x.rows)) {
    for (uint32_t p = 0; p < weight.panels(); p += std::min(cut.panels, weight.panels())) {
      kernels.matmul({.weight = weight,
                      .x = x.data,
                      .x_stride = x.row_stride,
                      .prepared = prepared.data(),
                      .out = out.data,
                      .out_stride = out.row_stride,
                      .first_row = r,
                      .rows = std::min(cut.rows, x.rows - r),
                      .call_rows = x.rows,
                      .first_panel = p,
                      .panels = std::min(cut.panels, weight.panels() - p),
                      .accumulate = accumulate,
                      .scratch = scratch.data()});
    }
  }
}

void RunAttention(const CpuKernels& kernels, MatrixView out, MatrixView q,
                  const AttentionCall& call, uint32_t rows_each, bool in_parts) {
  AlignedBytes scratch(AttentionScratchBytes(call.shape));
  const auto page_count = static_cast<uint32_t>(call.pages.size());
  rows_each = std::min(rows_each, AttentionRowsMax(call.shape));
  for (uint32_t r = 0; r < q.rows; r += rows_each) {
    for (uint32_t h = 0; h < call.shape.kv_heads; ++h) {
      const AttentionTask task{.shape = call.shape,
                               .first_position = call.first_position,
                               .pages = call.pages.data(),
                               .page_count = page_count,
                               .rope = call.rope,
                               .basis = call.basis == nullptr ? nullptr : call.basis + h,
                               .q = q.data,
                               .q_stride = q.row_stride,
                               .out = out.data,
                               .out_stride = out.row_stride,
                               .kv_head = h,
                               .call_rows = call.call_rows == 0 ? q.rows : call.call_rows,
                               .first_row = r,
                               .rows = std::min(rows_each, q.rows - r),
                               .scratch = scratch.data()};
      if (!in_parts) {
        kernels.attend(task);
        continue;
      }
      const uint64_t floats = AttentionStateFloats(call.shape, task.rows);
      std::vector<float> states(floats * AttentionParts(page_count));
      for (uint32_t part = AttentionParts(page_count); part-- > 0;) {
        kernels.attend_part(task, part, &states[part * floats]);
      }
      kernels.merge_parts(task, states.data());
    }
  }
}

std::vector<const CpuKernels*> TestedKernels() {
  const auto tables = SupportedCpuKernels(DetectCpuFeatures());
  return {tables.begin(), tables.end()};
}

bool MultipliesBf16(const CpuKernels& kernels) { return kernels.name == "amx"; }

bool MultipliesInt16(const CpuKernels& kernels) {
  return kernels.name == "avx2" || kernels.name == "avx512vnni";
}

double ProductPrecision(const CpuKernels& kernels, PackedKind kind, uint32_t call_rows) {
  const bool few = call_rows <= kernels.few_rows;
  if (few) {
    // Activations of 15 bits and a sign below the largest of the row, where the weights are codes.
    return kind == PackedKind::kQ4 || kind == PackedKind::kQ8 ? 0x1p-15 : 0x1p-22;
  }
  if (MultipliesBf16(kernels)) return 0x1p-8;
  // Both factors have 15 bits below the norm of up to 384 of them, weights a little less.
  return MultipliesInt16(kernels) ? 0x1p-11 : 0x1p-22;
}

}  // namespace corpusd
