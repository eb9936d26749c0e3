#include "tests/bench/cpu_ceilings.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/bench/tile_config.h"

namespace corpusd {
namespace {

constexpr int kSteps = 400'000;
constexpr int kRepeats = 7;
constexpr uint64_t kReadBytes = uint64_t{256} << 20;

// Each loop keeps ten or more independent sums in flight; the asm-free trick against removal is to
// return a value that depends on all of them.
__attribute__((target("avx2,fma"))) float FmaYmm(int steps) {
  __m256 sums[12];
  for (int i = 0; i < 12; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f);
  const __m256 b = _mm256_set1_ps(0.001f);
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
  }
  for (int i = 1; i < 12; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

// Factors from the first-level cache: products of constants would be made once.
__attribute__((target("avx2"))) float DotInt16Ymm(int steps) {
  alignas(32) int16_t weights[1024];
  for (int i = 0; i < 1024; ++i) weights[i] = static_cast<int16_t>(i);
  __m256i sums[4][2];
  __m256i a[4];
  for (int i = 0; i < 4; ++i) a[i] = sums[i][0] = sums[i][1] = _mm256_set1_epi32(0x00010002 + i);
  for (int s = 0; s < steps; ++s) {
    const int16_t* w = weights + s % 32 * 32;
    const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 16));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(a[i], w0));
      sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(a[i], w1));
    }
  }
  __m256i total = _mm256_setzero_si256();
  for (const auto& pair : sums) {
    total = _mm256_add_epi32(total, _mm256_add_epi32(pair[0], pair[1]));
  }
  return static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(total)));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
__attribute__((target("avx512f"))) float FmaZmm(int steps) {
  __m512 sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f);
  const __m512 b = _mm512_set1_ps(0.001f);
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float DotBf16(int steps) {
  __m512 sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto a = (__m512bh)_mm512_set1_epi32(0x3f7f3c00 + (steps & 1));
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512vnni"))) float DotInt8(int steps) {
  __m512i sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi32(0x01020304 + (steps & 1));
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, a);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  return static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0])));
}

__attribute__((target("avx512f,avx512vnni"))) float DotInt16Zmm(int steps) {
  __m512i sums[16];
  for (int i = 0; i < 16; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi32(0x00010002 + (steps & 1));
  for (int s = 0; s < steps; ++s) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpwssd_epi32(sum, a, a);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  return static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0])));
}

__attribute__((target("amx-tile,amx-bf16"))) float DotTile(int steps) {
  // Constant data: g++ 12's _tile_loadconfig names 8 of the 64 bytes that it reads, and stores to
  // the others may be dropped.
  static constexpr TileConfig kConfig = {};
  _tile_loadconfig(&kConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int s = 0; s < steps; ++s) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float out[256];
  _tile_stored(0, out, 64);
  _tile_release();
  return out[0];
}
#pragma GCC diagnostic pop

// The best of several runs: a ceiling is what the machine does when nothing else runs.
double BestGmacs(ThreadPool& pool, bool processor_time, float (*loop)(int), int steps,
                 double macs_a_step) {
  double best = 0;
  std::atomic<float> sink{0};
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const double start = BenchSeconds(processor_time);
    pool.ParallelFor(pool.threads(), [&](uint32_t, unsigned) { sink = loop(steps); });
    const double seconds = BenchSeconds(processor_time) - start;
    best = std::max(best, macs_a_step * steps * pool.threads() / seconds * 1e-9);
  }
  return best;
}

// Asks for memory some lines ahead: without that the loop itself would be the limit, at two thirds
// of what the kernels read.
__attribute__((target("avx2"))) uint64_t SumBytes(const std::byte* data, uint64_t bytes) {
  constexpr uint64_t kAhead = 4096;
  __m256i sums[4] = {};
  for (uint64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kAhead), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kAhead + 64), _MM_HINT_T0);
    for (int j = 0; j < 4; ++j) {
      const auto* p = reinterpret_cast<const __m256i*>(data + i + uint64_t(j) * 32);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(p));
    }
  }
  sums[0] =
      _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(sums[0], 0));
}

double ReadGbytes(ThreadPool& pool, bool processor_time) {
  void* memory =
      mmap(nullptr, kReadBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, kReadBytes, MADV_HUGEPAGE);
  std::memset(memory, 1, kReadBytes);
  const auto* data = static_cast<const std::byte*>(memory);
  const uint64_t slice = uint64_t{1} << 20;
  double best = 0;
  std::atomic<uint64_t> sink{0};
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const double start = BenchSeconds(processor_time);
    pool.ParallelFor(static_cast<uint32_t>(kReadBytes / slice), [&](uint32_t item, unsigned) {
      sink += SumBytes(data + item * slice, slice);
    });
    best = std::max(
        best, static_cast<double>(kReadBytes) / (BenchSeconds(processor_time) - start) * 1e-9);
  }
  munmap(memory, kReadBytes);
  return best;
}

}  // namespace

double BenchSeconds(bool processor_time) {
  if (processor_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double MacsCeiling(const CpuCeilings& ceilings, std::string_view backend) {
  if (!backend.starts_with("cpu-")) return 0;
  if (backend == "cpu-amx") return ceilings.amx_bf16_gmacs;
  return backend == "cpu-avx512" ? ceilings.fp32_gmacs : ceilings.int16_gmacs;
}

CpuCeilings MeasureCpuCeilings(unsigned threads, bool processor_time) {
  const CpuFeatures features = DetectCpuFeatures();
  ThreadPool pool(threads);
  CpuCeilings ceilings;
  if (features.avx2) {
    ceilings.fp32_gmacs = BestGmacs(pool, processor_time, FmaYmm, kSteps, 12 * 8);
    ceilings.int16_gmacs = BestGmacs(pool, processor_time, DotInt16Ymm, kSteps, 8 * 16);
  }
  if (features.avx512) {
    ceilings.fp32_gmacs =
        std::max(ceilings.fp32_gmacs, BestGmacs(pool, processor_time, FmaZmm, kSteps, 16 * 16));
  }
  if (features.avx512_vnni) {
    ceilings.int8_gmacs = BestGmacs(pool, processor_time, DotInt8, kSteps, 16 * 64);
    ceilings.int16_gmacs = std::max(ceilings.int16_gmacs,
                                    BestGmacs(pool, processor_time, DotInt16Zmm, kSteps, 16 * 32));
  }
  if (features.avx512_vnni && __builtin_cpu_supports("avx512bf16") != 0)
    ceilings.bf16_gmacs = BestGmacs(pool, processor_time, DotBf16, kSteps, 16 * 32);
  if (features.amx_bf16) {
    ceilings.amx_bf16_gmacs =
        BestGmacs(pool, processor_time, DotTile, kSteps / 10, 4 * 16 * 16 * 32);
  }
  if (features.avx2) ceilings.read_gbytes = ReadGbytes(pool, processor_time);
  return ceilings;
}

}  // namespace corpusd
