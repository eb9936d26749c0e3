#include "kernels/cpu/cpu_kernels.h"

#include <array>

#include "kernels/cpu/isa/amx_kernels.h"
#include "kernels/cpu/isa/avx2_kernels.h"
#include "kernels/cpu/isa/avx512_kernels.h"
#include "kernels/cpu/isa/avx512_vnni_kernels.h"

namespace corpusd {
namespace {

// Each needs all that those before it need.
constexpr std::array<const CpuKernels*, 4> kTables = {&kAvx2Kernels, &kAvx512Kernels,
                                                      &kAvx512VnniKernels, &kAmxKernels};

size_t SupportedCount(const CpuFeatures& features) {
  if (!features.avx2) return 0;
  if (!features.avx512) return 1;
  if (!features.avx512_vnni) return 2;
  return features.amx_bf16 ? 4 : 3;
}

}  // namespace

std::span<const CpuKernels* const> SupportedCpuKernels(const CpuFeatures& features) noexcept {
  return {kTables.data(), SupportedCount(features)};
}

const CpuKernels* SelectCpuKernels(const CpuFeatures& features, std::string_view isa) noexcept {
  const auto tables = SupportedCpuKernels(features);
  if (isa == "auto") return tables.empty() ? nullptr : tables.back();
  if (isa == "avx512" && features.avx512_vnni) return &kAvx512VnniKernels;
  for (const CpuKernels* table : tables) {
    if (table->name == isa) return table;
  }
  return nullptr;
}

}  // namespace corpusd
