// page_attention_bench: attention of 1, 4 and 16 rows (tokens of a question, or as many questions
// on one corpus) over pages in the engine's formats, as a share of the device's copy bandwidth of
// the same run. Random codes, scales and bases; one layer, as a CUDA graph, as the engine's steps
// run (ms), and launched kernel by kernel (launched_ms).
//   page_attention_bench [--smoke]     prints one JSON object a line
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/coded_tile.h"
#include "kernels/cuda/page_attention.h"
#include "tests/bench/device_timing.h"

namespace corpusd::cuda {
namespace {

struct Shape {
  uint32_t kv_heads, q_heads, head_dim;
};

// alone_ms: of one row, once that is measured.
void Bench(const Shape& shape, PageCodec codec, uint32_t tokens, bool positions, uint32_t rows,
           double copy_bandwidth, const uint8_t* noise, uint64_t noise_bytes, double* alone_ms) {
  const int bits = codec == PageCodec::kBf16 ? 16 : static_cast<int>(codec);
  const auto dim = static_cast<int>(shape.head_dim);
  const uint32_t tile = bits == 16 ? 128 * dim * 2 : CodedTileBytes(bits, dim);
  const uint32_t pages = tokens / kTileTokens;
  const uint64_t block = uint64_t{2} * shape.kv_heads * tile;
  if (block * pages > noise_bytes) return;
  Memory memory;
  std::vector<DevicePage> list(pages);
  for (uint32_t p = 0; p < pages; ++p) {
    list[p].bytes = noise + uint64_t{p} * 7919 % pages * block;
    list[p].layer_bytes = static_cast<uint32_t>(block);
    list[p].key_tile_bytes = list[p].value_tile_bytes = tile;
    list[p].tokens = kTileTokens;
    list[p].first_position = int64_t{p} * kTileTokens;
    list[p].key_codec = list[p].value_codec = codec;
  }
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> basis(2 * shape.kv_heads * BasisSideFloats(dim)),
      q(size_t{rows} * shape.q_heads * dim);
  for (float& x : basis) x = normal(random);
  for (float& x : q) x = normal(random);
  PageAttention call;
  call.q_heads = shape.q_heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.scale = 0.1f;
  call.pages = memory.Copy(list);
  call.rows = memory.Copy(std::vector<AttentionRow>(rows, {0, pages, int64_t{tokens} - 1}));
  call.pages_min = call.pages_max = pages;
  call.kinds = 1u << PageKindOf(codec, codec);
  if (bits != 16) call.basis.arrays = memory.Copy(basis);
  if (positions) {
    std::vector<float> turns(size_t{tokens} * dim);
    for (size_t i = 0; i < turns.size(); i += 2) turns[i] = 0.6f, turns[i + 1] = 0.8f;
    call.rope = {memory.Copy(turns), shape.head_dim / 2};
  }
  const uint32_t cols = shape.q_heads * dim;
  call.q = {memory.Copy(q), rows, cols, cols};
  call.out = {memory.Copy(q), rows, cols, cols};
  call.workspace = memory.Copy(std::vector<float>(
      PageAttentionFloats(rows, pages, shape.q_heads, shape.kv_heads, shape.head_dim)));
  const double launched_ms = MedianMs(21, 3, [&] { Check(AttendPages(call, nullptr), "attend"); });
  const GraphOf graph([&](cudaStream_t stream) { Check(AttendPages(call, stream), "attend"); });
  const double ms = MedianMs(21, 3, [&] { graph.Launch(); });
  if (rows == 1) *alone_ms = ms;
  const double rate = static_cast<double>(block) * pages / ms * 1e3;
  std::printf(
      "{\"kv_heads\": %u, \"q_heads\": %u, \"head_dim\": %u, \"tokens\": %u, \"rows\": %u, "
      "\"positions\": %s, \"bits\": %d, \"ms\": %.4f, \"launched_ms\": %.4f, \"gb_per_s\": %.0f, "
      "\"share_of_copy\": "
      "%.3f, \"times_one_row\": %.2f}\n",
      shape.kv_heads, shape.q_heads, shape.head_dim, tokens, rows, positions ? "true" : "false",
      bits, ms, launched_ms, rate / 1e9, rate / copy_bandwidth, *alone_ms * rows / ms);
  std::fflush(stdout);
}

int Run(bool smoke) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::printf("no CUDA device: nothing was measured\n");
    return 0;
  }
  const double bandwidth = CopyBandwidth(CopiedBytes(smoke));
  std::printf("{\"copy_gb_per_s\": %.0f}\n", bandwidth / 1e9);
  // Codes, and halves of small numbers where they are read as bfloat16.
  const uint64_t bytes = smoke ? uint64_t{64} << 20 : uint64_t{9} << 30;
  std::vector<uint8_t> pattern(uint64_t{16} << 20);
  std::mt19937 random(2);
  for (size_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = i % 2 == 0 ? random() & 255 : 0x3C + (random() & 0x81);
  }
  uint8_t* noise = nullptr;
  Check(cudaMalloc(&noise, bytes), "allocate");
  for (uint64_t at = 0; at < bytes; at += pattern.size()) {
    Check(cudaMemcpy(noise + at, pattern.data(), pattern.size(), cudaMemcpyHostToDevice), "copy");
  }
  for (const Shape& shape : {Shape{8, 40, 128}, Shape{3, 9, 64}}) {
    for (const uint32_t tokens : {8192u, 131072u, 1048576u, 10485760u}) {
      for (const PageCodec codec :
           {PageCodec::kBf16, PageCodec::kCq8, PageCodec::kCq4, PageCodec::kCq3, PageCodec::kCq2}) {
        if (smoke && tokens > 8192) continue;
        for (const bool positions : {false, true}) {
          if (positions && tokens != 1048576 && !smoke) continue;  // its table is large
          double alone_ms = 0;
          for (const uint32_t rows : {1u, 4u, 16u}) {
            if (rows > 1 && tokens > 1048576) continue;
            Bench(shape, codec, tokens, positions, rows, bandwidth, noise, bytes, &alone_ms);
          }
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace corpusd::cuda

int main(int count, char** arguments) {
  return corpusd::cuda::Run(count > 1 && std::strcmp(arguments[1], "--smoke") == 0);
}
