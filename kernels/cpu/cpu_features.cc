#include "kernels/cpu/cpu_features.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace corpusd {
namespace {

constexpr uint32_t kAvxState = 0x6;         // XMM and YMM
constexpr uint32_t kAvx512State = 0xe6;     // and masks, upper halves, ZMM16 to 31
constexpr uint32_t kAmxState = 0x60000;     // TILECFG and TILEDATA
constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr int kTileDataFeature = 18;        // XFEATURE_XTILEDATA

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers Cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

__attribute__((target("xsave"))) uint64_t EnabledState() { return _xgetbv(0); }

bool Has(uint32_t value, int bit) { return (value >> bit & 1u) != 0; }

bool TilePermission() { return syscall(SYS_arch_prctl, kRequestPermission, kTileDataFeature) == 0; }

}  // namespace

CpuFeatures DetectCpuFeatures() noexcept {
  CpuFeatures features;
  const Registers basic = Cpuid(1, 0);
  const bool saves_state = Has(basic.ecx, 27);  // OSXSAVE
  if (!saves_state) return features;
  const uint64_t state = EnabledState();
  const Registers extended = Cpuid(7, 0);
  const Registers extended1 = Cpuid(7, 1);
  const bool fma_f16c_avx = Has(basic.ecx, 12) && Has(basic.ecx, 29) && Has(basic.ecx, 28);
  features.avx2 = (state & kAvxState) == kAvxState && fma_f16c_avx && Has(extended.ebx, 5);
  features.avx512 = features.avx2 && (state & kAvx512State) == kAvx512State &&
                    Has(extended.ebx, 16) && Has(extended.ebx, 17) && Has(extended.ebx, 30) &&
                    Has(extended.ebx, 31);
  features.avx512_vnni = features.avx512 && Has(extended.ecx, 11);
  features.amx_bf16 = features.avx512_vnni && Has(extended.ecx, 1) &&  // AVX512_VBMI
                      Has(extended1.eax, 5) &&                         // AVX512_BF16
                      (state & kAmxState) == kAmxState && Has(extended.edx, 22) &&
                      Has(extended.edx, 24) && Has(extended.edx, 25) &&  // AMX-TILE, AMX-INT8
                      TilePermission();
  return features;
}

}  // namespace corpusd
