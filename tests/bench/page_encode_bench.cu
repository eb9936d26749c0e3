// page_encode_bench: new keys and values become pages in the engine's formats, one layer; as a
// share of the device's copy bandwidth of the same run, and in tokens a second. Random numbers.
//   page_encode_bench [--smoke]     prints one JSON object a line
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/coded_tile.h"
#include "kernels/cuda/kv_encode.h"
#include "tests/bench/device_timing.h"

namespace corpusd::cuda {
namespace {

std::vector<float> Noise(size_t count, float size) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

struct Shape {
  uint32_t kv_heads, head_dim;
};

void Bench(const Shape& shape, PageCodec codec, int pages, double copy_bandwidth) {
  const auto dim = static_cast<int>(shape.head_dim);
  const int bits = codec == PageCodec::kBf16 ? 16 : static_cast<int>(codec);
  const uint32_t tile = bits == 16 ? kTileTokens * dim * 2 : CodedTileBytes(bits, dim);
  const size_t page_bytes = size_t{2} * shape.kv_heads * tile;
  const uint32_t cols = shape.kv_heads * shape.head_dim;
  const size_t numbers = size_t{kTileTokens} * pages * cols;
  Memory memory;
  const float* const keys = memory.Copy(Noise(numbers, 1));
  const float* const values = memory.Copy(Noise(numbers, 1));
  auto* const to = memory.Take<uint8_t>(page_bytes * pages);
  EncodeCall call;
  for (int p = 0; p < pages; ++p) {
    const size_t first = size_t{kTileTokens} * p * cols;
    call.targets[p] = {to + p * page_bytes, keys + first, values + first, kTileTokens, 0};
  }
  call.rows_max = kTileTokens;
  call.count = pages;
  call.stride = cols;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.key_codec = call.value_codec = codec;
  call.key_tile_bytes = call.value_tile_bytes = tile;
  if (bits != 16) {
    call.basis.arrays = memory.Copy(Noise(2 * shape.kv_heads * BasisSideFloats(dim), 0.05f));
    call.scratch = memory.Take<float>(EncodeScratchFloats(pages, shape.kv_heads, shape.head_dim));
  }
  const double ms = MedianMs(15, 3, [&] { Check(EncodePages(call, nullptr), "encode"); });
  const double bytes =
      2.0 * static_cast<double>(numbers) * sizeof(float) + static_cast<double>(page_bytes) * pages;
  std::printf(
      "{\"kv_heads\": %u, \"head_dim\": %u, \"bits\": %d, \"tokens\": %d, \"ms\": %.4f, "
      "\"tokens_per_s\": %.0f, \"gb_per_s\": %.1f, \"share_of_copy\": %.4f}\n",
      shape.kv_heads, shape.head_dim, bits, kTileTokens * pages, ms, kTileTokens * pages / ms * 1e3,
      bytes / ms / 1e6, bytes / ms * 1e3 / copy_bandwidth);
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
  for (const Shape& shape : {Shape{8, 128}, Shape{3, 64}}) {
    for (const int pages : {4, kEncodeTargetsMax}) {
      for (const PageCodec codec :
           {PageCodec::kBf16, PageCodec::kCq8, PageCodec::kCq4, PageCodec::kCq3, PageCodec::kCq2}) {
        Bench(shape, codec, smoke ? 1 : pages, bandwidth);
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
