// tests/bench/device_attention_bench.cu -- decode attention over coded tiles on a CUDA device, as a
// share of the device's copy bandwidth measured in the same run. Prints one JSON object.
// usage: device_attention_bench [TOKENS...]   (default 131072 1048576)
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/coded_tile.h"
#include "kernels/cuda/decode_attention.h"

namespace {

using corpusd::CodedTile;
using corpusd::cuda::DecodeAttention;

constexpr int kRounds = 25, kWarmUp = 5;

void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "device_attention_bench: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

__device__ uint32_t Mix(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>(x ^ x >> 31);
}

// Random codes everywhere; scale bytes of 1/2 .. 2 behind the codes of every tile (the
// means there are read by nobody yet).
__global__ void FillTiles(uint32_t* words, size_t count, int tile_words, int code_words) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    uint32_t x = Mix(i * 0x9E3779B97F4A7C15ull + 1);
    if (static_cast<int>(i % tile_words) >= code_words) x = 0x80808080u + (x & 0x3F3F3F3Fu);
    words[i] = x;
  }
}

struct Timing {
  double median, least, most;  // milliseconds
};

template <class Run>
Timing Time(Run run) {
  cudaEvent_t begin, end;
  Require(cudaEventCreate(&begin), "event");
  Require(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < kRounds + kWarmUp; ++i) {
    Require(cudaEventRecord(begin), "record");
    const int repeats = run();
    Require(cudaEventRecord(end), "record");
    Require(cudaEventSynchronize(end), "run");
    float milliseconds = 0;
    Require(cudaEventElapsedTime(&milliseconds, begin, end), "time");
    if (i >= kWarmUp) times.push_back(milliseconds / repeats);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

double CopyBytesPerMs() {
  constexpr size_t kBytes = size_t{2} << 30;
  uint32_t *from, *to;
  Require(cudaMalloc(&from, kBytes), "memory");
  Require(cudaMalloc(&to, kBytes), "memory");
  FillTiles<<<1024, 256>>>(from, kBytes / 4, 1 << 20, 1 << 20);
  const Timing timing = Time([&] {
    Require(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice), "copy");
    return 1;
  });
  cudaFree(from);
  cudaFree(to);
  return 2.0 * kBytes / timing.median;
}

struct Shape {
  const char* name;
  int heads, rows;
  int alignment = 64;  // of tiles in device memory, bytes: the format's own is 64
};

template <int Bits, int Dim>
void Measure(const Shape& shape, int tokens, int multiprocessors, double copy_bytes_per_ms) {
  using Tile = CodedTile<Bits, Dim>;
  const int tiles = (tokens + 127) / 128;
  const int stride = (Tile::kBytes + shape.alignment - 1) / shape.alignment * shape.alignment;
  const size_t block_bytes = size_t{2} * shape.heads * stride;
  // Several copies in turn, so that the second-level cache holds none of them.
  const int copies = static_cast<int>(std::clamp<size_t>(400000000 / (block_bytes * tiles), 1, 8));
  uint8_t* memory;
  Require(cudaMalloc(&memory, block_bytes * tiles * copies), "memory");
  FillTiles<<<1024, 256>>>(reinterpret_cast<uint32_t*>(memory), block_bytes * tiles * copies / 4,
                           stride / 4, Tile::kCodeBytes / 4);
  std::vector<const uint8_t*> pointers;
  for (int i = 0; i < tiles * copies; ++i) {
    const size_t place = static_cast<size_t>(i / tiles) * tiles + size_t(i % tiles) * 7919 % tiles;
    pointers.push_back(memory + place * block_bytes);
  }
  const uint8_t** blocks;
  Require(cudaMalloc(&blocks, pointers.size() * 8), "memory");
  Require(cudaMemcpy(blocks, pointers.data(), pointers.size() * 8, cudaMemcpyHostToDevice), "copy");
  std::vector<float> queries(static_cast<size_t>(shape.heads) * shape.rows * Dim);
  for (size_t i = 0; i < queries.size(); ++i) {
    queries[i] =
        static_cast<float>(std::rand()) / RAND_MAX * 0.2f / (1 << Bits) * 4 - 0.4f / (1 << Bits);
  }
  DecodeAttention request;
  request.bits = Bits, request.head_dim = Dim, request.kv_heads = shape.heads;
  request.query_rows = shape.rows, request.tokens = tokens;
  request.value_offset = static_cast<uint64_t>(stride) * shape.heads, request.tile_stride = stride;
  const size_t workspace_bytes = corpusd::cuda::DecodeWorkspaceBytes(request, multiprocessors);
  float *device_queries, *outputs;
  Require(cudaMalloc(&device_queries, queries.size() * 4), "memory");
  Require(cudaMemcpy(device_queries, queries.data(), queries.size() * 4, cudaMemcpyHostToDevice),
          "copy");
  Require(cudaMalloc(&outputs, queries.size() * 4), "memory");
  Require(cudaMalloc(&request.workspace, workspace_bytes), "memory");
  Require(cudaMemset(request.workspace, 0, workspace_bytes), "memory");
  request.queries = device_queries, request.outputs = outputs;
  const Timing timing = Time([&] {
    for (int copy = 0; copy < copies; ++copy) {
      request.blocks = blocks + static_cast<size_t>(copy) * tiles;
      Require(static_cast<cudaError_t>(
                  corpusd::cuda::LaunchDecodeAttention(request, multiprocessors, nullptr)),
              "launch");
    }
    return copies;
  });
  const double bytes = 2.0 * shape.heads * Tile::kBytes * tiles;  // read, not skipped
  std::printf(
      "%s{\"shape\": \"%s\", \"bits\": %d, \"head_dim\": %d, \"kv_heads\": %d, \"query_rows\": %d, "
      "\"tokens\": %d, \"bytes\": %.0f, \"ms\": %.4f, \"ms_min\": %.4f, \"ms_max\": %.4f, "
      "\"tb_per_s\": %.3f, \"share_of_copy\": %.3f}",
      "", shape.name, Bits, Dim, shape.heads, shape.rows, tokens, bytes, timing.median,
      timing.least, timing.most, bytes / timing.median * 1e-9,
      bytes / timing.median / copy_bytes_per_ms);
  for (void* pointer :
       {static_cast<void*>(memory), static_cast<void*>(blocks), static_cast<void*>(device_queries),
        static_cast<void*>(outputs), request.workspace}) {
    cudaFree(pointer);
  }
}

template <int Dim>
void MeasureWidths(const Shape& shape, int tokens, int multiprocessors, double copy) {
  const char* separator = ",\n  ";
  Measure<8, Dim>(shape, tokens, multiprocessors, copy), std::printf("%s", separator);
  Measure<4, Dim>(shape, tokens, multiprocessors, copy), std::printf("%s", separator);
  Measure<3, Dim>(shape, tokens, multiprocessors, copy), std::printf("%s", separator);
  Measure<2, Dim>(shape, tokens, multiprocessors, copy);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoi(argv[i]));
  if (sizes.empty()) sizes = {131072, 1048576};
  cudaDeviceProp device;
  Require(cudaGetDeviceProperties(&device, 0), "no CUDA device");
  const double copy = CopyBytesPerMs();
  std::printf("{\"device\": \"%s\", \"copy_tb_per_s\": %.3f, \"results\": [\n  ", device.name,
              copy * 1e-9);
  bool first = true;
  for (const int tokens : sizes) {
    if (tokens < 1) continue;
    if (!first) std::printf(",\n  ");
    first = false;
    MeasureWidths<128>({"8 KV heads of 128, 40 query heads", 8, 5}, tokens,
                       device.multiProcessorCount, copy);
    std::printf(",\n  ");
    MeasureWidths<64>({"3 KV heads of 64, 9 query heads", 3, 3}, tokens, device.multiProcessorCount,
                      copy);
    std::printf(",\n  ");
    MeasureWidths<64>(
        {"3 KV heads of 64, 9 query heads, tiles at multiples of 128 bytes", 3, 3, 128}, tokens,
        device.multiProcessorCount, copy);
    std::printf(",\n  ");
    Measure<4, 128>({"two questions on 8 KV heads of 128", 8, 10}, tokens,
                    device.multiProcessorCount, copy);
  }
  std::printf("\n]}\n");
  return 0;
}
