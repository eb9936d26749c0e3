#include "kernels/cpu/cpu_kernels.h"

#include <array>

#include "kernels/cpu/isa/avx2_kernels.h"
#include "kernels/cpu/isa/avx512_kernels.h"

namespace corpusd {
namespace {

constexpr std::array<const CpuKernels*, 2> kTables = {&kAvx2Kernels, &kAvx512Kernels};

size_t SupportedCount(const CpuFeatures& features) {
  if (!features.avx2) return 0;
  if (!features.avx512) return 1;
  return 2;
}

}  // namespace

std::span<const CpuKernels* const> SupportedCpuKernels(const CpuFeatures& features) noexcept {
  return {kTables.data(), SupportedCount(features)};
}

const CpuKernels* SelectCpuKernels(const CpuFeatures& features, std::string_view isa) noexcept {
  const auto tables = SupportedCpuKernels(features);
  if (isa == "auto") return tables.empty() ? nullptr : tables.back();
  for (const CpuKernels* table : tables) {
    if (table->name == isa) return table;
  }
  return nullptr;
}

}  // namespace corpusd
