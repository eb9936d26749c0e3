// What tile instructions (AMX) and vector instructions take beside each other, in cycles of one
// core: why products of few rows do not reach the rate of tiles.
//   tile_rates [--smoke]
// Each loop has the named instructions and nothing else; the least of many short slices, so that
// others on the machine do not count. A cycle is a quarter of a chained integer multiplication and
// disjunction. Prints one JSON object.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "kernels/cpu/cpu_features.h"
#include "tests/bench/tile_config.h"

namespace corpusd {
namespace {

constexpr int kSteps = 200;  // of a slice: some microseconds

alignas(64) uint8_t memory[8192];  // factors, sums, lines
alignas(64) float result[16 * 16];
volatile uint64_t chained;

// What a loop holds, by bits. kAgain: a second first factor, product and store.
enum Tiles : unsigned {
  kNone = 0,
  kLoad = 1,
  kLoads = 3,
  kProduct = 4,
  kStore = 8,
  kAgain = 16,
  kLines8 = 32,  // lines that vectors store
  kLines16 = 64
};
// g++ 12 warns of its own _mm512_undefined_ps.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
// 16 registers, and what is done to each.
struct Registers {
  __m512 v[16];
};
__attribute__((always_inline, target("avx512f"))) inline void MultiplyAdd(Registers& r, __m512 a) {
#pragma GCC unroll 16
  for (__m512& v : r.v) v = _mm512_fmadd_ps(v, a, a);
}
__attribute__((always_inline, target("avx512f"))) inline void Convert(Registers& r) {
#pragma GCC unroll 16
  for (__m512& v : r.v) v = _mm512_cvtepi32_ps(_mm512_castps_si512(v));
}
__attribute__((always_inline, target("avx512f"))) inline void IntegerStep(Registers& r, __m512 a) {
  const __m512i b = _mm512_castps_si512(a);
#pragma GCC unroll 16
  for (__m512& v : r.v) {
    v = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(v), b, b, 0x1e));
  }
}

// Tile instructions of a product of 16 x 16, and 16 times so many vector instructions of a kind.
template <unsigned kTiles, int kFma = 0, int kConvert = 0, int kIntegers = 0>
__attribute__((noinline, target("avx512f,amx-tile,amx-int8"))) void Loop() {
  constexpr int kLines = (kTiles & kLines16) != 0 ? 16 : (kTiles & kLines8) != 0 ? 8 : 0;
  Registers registers;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) registers.v[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.5f);
  for (int step = 0; step < kSteps; ++step) {
    uint8_t* const sums = memory + 3072 + step % 2 * 2048;
    if constexpr ((kTiles & kProduct) != 0) _tile_zero(0);
    if constexpr ((kTiles & kLoad) != 0) _tile_loadd(4, memory, 64);
    if constexpr ((kTiles & kLoads) == kLoads) _tile_loadd(6, memory + 1024, 64);
    if constexpr ((kTiles & kProduct) != 0) _tile_dpbsud(0, 4, 6);
    if constexpr ((kTiles & kStore) != 0) _tile_stored(0, sums, 64);
    if constexpr ((kTiles & kAgain) != 0) {
      _tile_zero(1);
      _tile_loadd(5, memory + 2048, 64);
      _tile_dpbsud(1, 5, 6);
      _tile_stored(1, sums + 1024, 64);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLines; ++i) _mm512_store_ps(memory + 7168 + i * 64, factor);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);  // they are made in every step
#pragma GCC unroll 4
    for (int i = 0; i < kFma; ++i) MultiplyAdd(registers, factor);
#pragma GCC unroll 4
    for (int i = 0; i < kConvert; ++i) Convert(registers);
#pragma GCC unroll 4
    for (int i = 0; i < kIntegers; ++i) IntegerStep(registers, factor);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_ps(result + i * 16, registers.v[i]);
}

#pragma GCC diagnostic pop

// Four cycles a step.
constexpr int kChained = 16;
__attribute__((noinline)) void Chain() {
  uint64_t x = 3;
  for (int step = 0; step < kSteps * kChained; ++step) x = (x * x) | 1;
  chained = x;
}

// Ticks of the least of many slices.
template <typename Body>
double LeastTicks(int slices, const Body& body) {
  uint64_t least = ~uint64_t{0};
  for (int i = 0; i < slices; ++i) {
    const uint64_t start = __rdtsc();
    body();
    least = std::min<uint64_t>(least, __rdtsc() - start);
  }
  return static_cast<double>(least);
}

__attribute__((target("amx-tile"))) int Run(int slices) {
  // Constant data: see cpu_ceilings.cc.
  static constexpr TileConfig kConfig = {};
  _tile_loadconfig(&kConfig);
  _tile_zero(4);
  _tile_zero(6);
  const double cycle = LeastTicks(slices, Chain) / (kChained * 4.0);
  nlohmann::ordered_json json;
  const auto add = [&](const char* name, void (*loop)()) {
    json["cycles"][name] = LeastTicks(slices, loop) / cycle;
  };
  constexpr unsigned kWhole = kLoads | kProduct | kStore;
  add("2 tile loads", Loop<kLoads>);
  add("loads, product", Loop<kLoads | kProduct>);
  add("tile store", Loop<kStore>);
  add("loads, product, store", Loop<kWhole>);
  add("loads, product, store, 16 lines stored", Loop<kWhole | kLines16>);
  add("64 multiply-adds", Loop<kNone, 4>);
  add("64 multiply-adds, tile load", Loop<kLoad, 4>);
  add("64 multiply-adds, loads, product, store", Loop<kWhole, 4>);
  add("64 conversions", Loop<kNone, 0, 4>);
  add("64 conversions, tile load", Loop<kLoad, 0, 4>);
  add("64 integer operations", Loop<kNone, 0, 0, 4>);
  add("64 integer operations, tile load", Loop<kLoad, 0, 0, 4>);
  add("64 integer operations, loads, product, store", Loop<kWhole, 0, 0, 4>);
  // What 32 inputs of a panel and 16 rows take at least: as they are, in two products of 16-bit
  // inputs; in one of 12-bit inputs that have a scale each 32.
  add("16 rows, 16 bits", Loop<kWhole | kAgain | kLines8, 2, 1, 3>);
  add("16 rows, 12 bits", Loop<kWhole | kLines16, 3, 1, 1>);
  _tile_release();
  std::printf("%s\n", json.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace corpusd

int main(int argc, char** argv) {
  if (!corpusd::DetectCpuFeatures().amx_bf16) {
    std::printf("{\"skipped\": \"this processor has no tiles\"}\n");
    return 0;
  }
  return corpusd::Run(argc > 1 && std::strcmp(argv[1], "--smoke") == 0 ? 10 : 20000);
}
