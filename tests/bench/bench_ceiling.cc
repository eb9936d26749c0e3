#include "tests/bench/bench_ceiling.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace corpusd {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPasses = 5;
constexpr size_t kBufferBytes = size_t{512} << 20;
constexpr uint64_t kMacRounds = 20'000'000;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs body(thread) on every thread at once. RETURNS seconds.
template <typename Body>
double TimeThreads(unsigned threads, const Body& body) {
  const auto start = Clock::now();
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < threads; ++t) others.emplace_back([&body, t] { body(t); });
  body(0);
  others.clear();
  return SecondsSince(start);
}

__attribute__((target("avx2"))) uint64_t SumAvx2(const uint64_t* words, size_t count) {
  __m256i sums[8] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t k = 0; k < 8; ++k) {
      sums[k] = _mm256_add_epi64(
          sums[k], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i + 4 * k)));
    }
  }
  for (size_t k = 1; k < 8; ++k) sums[0] = _mm256_add_epi64(sums[0], sums[k]);
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

// Ten independent chains hide the latency of a multiply-add on every x86-64 processor there is.
__attribute__((target("avx2,fma"))) float MacsAvx2(uint64_t rounds) {
  __m256 chains[10];
  for (auto& chain : chains) chain = _mm256_set1_ps(1.0F);
  const __m256 factor = _mm256_set1_ps(0.999999F);
  const __m256 addend = _mm256_set1_ps(1e-6F);
  for (uint64_t r = 0; r < rounds; ++r) {
    for (auto& chain : chains) chain = _mm256_fmadd_ps(chain, factor, addend);
  }
  for (size_t k = 1; k < 10; ++k) chains[0] = _mm256_add_ps(chains[0], chains[k]);
  return _mm256_cvtss_f32(chains[0]);
}

__attribute__((target("avx512f"))) float MacsAvx512(uint64_t rounds) {
  __m512 chains[10];
  for (auto& chain : chains) chain = _mm512_set1_ps(1.0F);
  const __m512 factor = _mm512_set1_ps(0.999999F);
  const __m512 addend = _mm512_set1_ps(1e-6F);
  for (uint64_t r = 0; r < rounds; ++r) {
    for (auto& chain : chains) chain = _mm512_fmadd_ps(chain, factor, addend);
  }
  for (size_t k = 1; k < 10; ++k) chains[0] = _mm512_add_ps(chains[0], chains[k]);
  return _mm512_cvtss_f32(chains[0]);
}

}  // namespace

double MeasureReadBandwidth(unsigned threads) {
  void* const memory =
      mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, kBufferBytes, MADV_HUGEPAGE);
  auto* const words = static_cast<uint64_t*>(memory);
  const size_t count = kBufferBytes / sizeof(uint64_t);
  for (size_t i = 0; i < count; ++i) words[i] = i * 0x9e3779b97f4a7c15u;
  double best = 0;
  volatile uint64_t sink = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double seconds = TimeThreads(threads, [&](unsigned t) {
      const size_t part = count / threads;
      sink = sink + SumAvx2(words + t * part, part);
    });
    best = std::max(best, static_cast<double>(kBufferBytes) / seconds);
  }
  munmap(memory, kBufferBytes);
  return best;
}

double MeasureFloatMacs(unsigned threads) {
  const bool wide = __builtin_cpu_supports("avx512f") != 0;
  double best = 0;
  volatile float sink = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double seconds = TimeThreads(threads, [&](unsigned) {
      sink = sink + (wide ? MacsAvx512(kMacRounds) : MacsAvx2(kMacRounds));
    });
    const double macs = static_cast<double>(kMacRounds) * 10 * (wide ? 16 : 8) * threads;
    best = std::max(best, macs / seconds);
  }
  return best;
}

}  // namespace corpusd
