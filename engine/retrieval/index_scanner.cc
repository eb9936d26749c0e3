#include "engine/retrieval/index_scanner.h"

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/index_tile_codec.h"

namespace corpusd {

IndexScanner::IndexScanner(unsigned threads, std::string_view isa)
    : scan_(ReferenceScanIndex), isa_("reference"), pool_(threads) {
  if (const CpuKernels* kernels = SelectCpuKernels(DetectCpuFeatures(), isa)) {
    scan_ = kernels->scan_index;
    isa_ = kernels->name;
  }
}

}  // namespace corpusd
