// prefill_attention_bench: attention of many rows over a history of pages in the engine's formats,
// every key seen by every row: expansion of the pages to bfloat16 and the attention itself. Random
// codes, scales and bases; one layer. tests/bench/compare_cudnn puts cuDNN beside it.
//   prefill_attention_bench [--smoke]     prints one JSON object a line
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/coded_tile.h"
#include "kernels/cuda/prefill_attention.h"
#include "tests/bench/device_timing.h"

namespace corpusd::cuda {
namespace {

struct Shape {
  uint32_t kv_heads, q_heads, head_dim;
};

// Codes, and small numbers where they are read as bfloat16: one pattern again and again.
void FillWithNoise(uint8_t* bytes, size_t size, std::mt19937* random) {
  std::vector<uint8_t> pattern(size_t{4} << 20);
  for (size_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = i % 2 == 0 ? (*random)() & 255 : 0x3C + ((*random)() & 0x81);
  }
  for (size_t at = 0; at < size; at += pattern.size()) {
    Check(cudaMemcpy(bytes + at, pattern.data(), std::min(pattern.size(), size - at),
                     cudaMemcpyHostToDevice),
          "copy");
  }
}

void Bench(const Shape& shape, PageCodec codec, uint32_t rows, uint32_t history) {
  const int bits = codec == PageCodec::kBf16 ? 16 : static_cast<int>(codec);
  const auto dim = static_cast<int>(shape.head_dim);
  const uint32_t tile = bits == 16 ? 128 * dim * 2 : CodedTileBytes(bits, dim);
  const uint32_t pages = history / kTileTokens, block = 2 * shape.kv_heads * tile;
  Memory memory;
  std::mt19937 random(1);
  auto* const bytes = memory.Take<uint8_t>(size_t{pages} * block);
  FillWithNoise(bytes, size_t{pages} * block, &random);
  std::vector<DevicePage> list(pages);
  for (uint32_t p = 0; p < pages; ++p) {
    list[p].bytes = bytes + size_t{p} * block;
    list[p].layer_bytes = block;
    list[p].key_tile_bytes = list[p].value_tile_bytes = tile;
    list[p].tokens = kTileTokens;
    list[p].first_position = int64_t{p} * kTileTokens;
    list[p].key_codec = list[p].value_codec = codec;
  }
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> basis(2 * shape.kv_heads * BasisSideFloats(dim));
  std::vector<float> q(size_t{rows} * shape.q_heads * dim), turns((history + rows) * dim);
  for (float& x : basis) x = normal(random);
  for (float& x : q) x = normal(random);
  for (size_t i = 0; i < turns.size(); i += 2) turns[i] = 0.6f, turns[i + 1] = 0.8f;
  ExpandCall expand;
  expand.pages = memory.Copy(list);
  expand.count = pages;
  expand.kv_heads = shape.kv_heads;
  expand.head_dim = shape.head_dim;
  expand.rope = {memory.Copy(turns), shape.head_dim / 2};
  if (bits != 16) expand.basis.arrays = memory.Copy(basis);
  const size_t side = size_t{shape.kv_heads} * history * dim;
  expand.keys = memory.Take<uint16_t>(2 * side);
  expand.values = expand.keys + side;
  std::vector<PrefillTile> tiles;
  for (uint32_t row = 0; row < rows; row += kPrefillTileRows) {
    tiles.push_back(
        {row, std::min(kPrefillTileRows, rows - row), 0, pages, int64_t{history} + row});
  }
  PrefillAttention call;
  const uint32_t cols = shape.q_heads * dim;
  call.q = {memory.Copy(q), rows, cols, cols};
  call.out = {memory.Take<float>(q.size()), rows, cols, cols};
  call.q_heads = shape.q_heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.scale = 0.1f;
  call.tiles = memory.Copy(tiles);
  call.tile_count = static_cast<uint32_t>(tiles.size());
  call.pages_max = pages;
  call.workspace = memory.Take<float>(
      PrefillWorkspaceFloats(call.tile_count, pages, shape.q_heads, shape.head_dim));
  call.pages = expand.pages;
  call.page_count = pages;
  call.rope = expand.rope;
  call.keys = expand.keys;
  call.values = expand.values;
  const double expand_ms = MedianMs(9, 2, [&] { Check(ExpandPages(expand, nullptr), "expand"); });
  const double attend_ms = MedianMs(9, 2, [&] { Check(AttendExpanded(call, nullptr), "attend"); });
  const double products = 4.0 * rows * history * cols;
  std::printf(
      "{\"kv_heads\": %u, \"q_heads\": %u, \"head_dim\": %u, \"rows\": %u, \"history\": %u, "
      "\"bits\": %d, \"expand_ms\": %.4f, \"attend_ms\": %.4f, \"tflop_per_s\": %.0f}\n",
      shape.kv_heads, shape.q_heads, shape.head_dim, rows, history, bits, expand_ms, attend_ms,
      products / (expand_ms + attend_ms) / 1e9);
  std::fflush(stdout);
}

int Run(bool smoke, uint32_t rows) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::printf("no CUDA device: nothing was measured\n");
    return 0;
  }
  for (const Shape& shape : {Shape{8, 40, 128}, Shape{3, 9, 64}}) {
    for (const uint32_t history : {32768u, 131072u}) {
      for (const PageCodec codec :
           {PageCodec::kBf16, PageCodec::kCq8, PageCodec::kCq4, PageCodec::kCq3, PageCodec::kCq2}) {
        Bench(shape, codec, smoke ? 64 : rows, smoke ? 1024 : history);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace corpusd::cuda

int main(int count, char** arguments) {
  const bool smoke = count > 1 && std::strcmp(arguments[1], "--smoke") == 0;
  const int rows = count > 1 && !smoke ? std::atoi(arguments[1]) : 2048;
  if (rows < 1 || rows > 65536) return std::fprintf(stderr, "rows: 1 to 65536\n"), 2;
  return corpusd::cuda::Run(smoke, static_cast<uint32_t>(rows));
}
