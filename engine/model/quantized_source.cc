#include "engine/model/quantized_source.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "engine/model/forwarding_source.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/dequantize.h"
#include "kernels/reference/quantize.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

// Raised when the same weights would get other codes.
constexpr std::string_view kEncoder = "corpusd quantized weights 1\n";
constexpr uint64_t kElementsOfAThread = 1 << 16;  // less is not worth waking one

constexpr std::array<std::string_view, 4> kModeNames = {"auto", "bf16", "int8", "int4"};

std::string_view NameOf(WeightMode mode) { return kModeNames[static_cast<size_t>(mode)]; }

// Numbers of 16 and 32 bits are said to take as much as they do on a CPU, which has no float16.
double BitsOf(WeightType type) {
  if (type == WeightType::kF16) return 32;
  const WeightTypeInfo* const info = FindWeightType(static_cast<uint32_t>(type));
  return 8.0 * info->block_bytes / info->block_elements;
}

WeightType TypeOf(WeightMode mode) {
  if (mode == WeightMode::kInt4) return WeightType::kQ4_1;
  return mode == WeightMode::kInt8 ? WeightType::kQ8_0 : WeightType::kBf16;
}

class QuantizedSource final : public ForwardingSource {
 public:
  QuantizedSource(std::unique_ptr<ModelSource> source, WeightMode mode, unsigned threads)
      : ForwardingSource(*source), owned_(std::move(source)), mode_(mode), threads_(threads) {}

  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override {
    ASSIGN_OR_RETURN(SourceMatrix matrix, source_.Matrix(tensor, rows, cols));
    return Encoded(tensor, std::move(matrix));
  }
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override {
    ASSIGN_OR_RETURN(SourceMatrix matrix,
                     source_.ExpertMatrix(tensor, expert, experts, rows, cols));
    return Encoded(tensor, std::move(matrix));
  }
  std::vector<TensorSize> TensorSizes() const override {
    std::vector<TensorSize> sizes = source_.TensorSizes();
    for (TensorSize& size : sizes) {
      const WeightType kept = KeptType(mode_, size.role, size.type, size.cols);
      if (!size.matrix || kept == size.type) continue;
      size.type = kept;
      size.bytes = size.elements / size.cols * WeightRowBytes(kept, size.cols);
    }
    return sizes;
  }
  Result<std::string> WeightsDigestHex(const std::string& cache_dir) const override {
    ASSIGN_OR_RETURN(const std::string digest, source_.WeightsDigestHex(cache_dir));
    Sha256 hash;
    hash.Update(kEncoder);
    hash.Update(std::string(NameOf(mode_)) + "\n" + digest + "\n");
    return HexText(hash.Finish());
  }

 private:
  Result<SourceMatrix> Encoded(const std::string& tensor, SourceMatrix matrix) const {
    const WeightSource& wide = matrix.weight;
    const WeightType kept = KeptType(mode_, RoleOf(tensor), wide.type, wide.cols);
    if (kept == wide.type) return matrix;
    SourceMatrix encoded{{wide.name, kept, wide.rows, wide.cols, {}}, {}};
    const uint64_t wide_bytes = WeightRowBytes(wide.type, wide.cols);
    const uint64_t row_bytes = WeightRowBytes(kept, wide.cols);
    encoded.copy.resize(row_bytes * wide.rows);
    ThreadPool pool(uint64_t{wide.rows} * wide.cols < kElementsOfAThread ? 1 : threads_);
    std::vector<float> scratch(size_t{wide.cols} * pool.threads());
    std::atomic<bool> fits{true};
    pool.ParallelFor(wide.rows, [&](uint32_t row, unsigned thread) {
      float* const values = scratch.data() + size_t{wide.cols} * thread;
      DequantizeRow(wide.type, wide.bytes.data() + row * wide_bytes, values, wide.cols);
      if (!QuantizeRow(kept, values, encoded.copy.data() + row * row_bytes, wide.cols)) {
        fits.store(false, std::memory_order_relaxed);
      }
    });
    if (!fits.load()) {
      return InvalidArgumentError(path() + ": tensor '" + wide.name + "' has numbers that " +
                                  std::string(NameOf(mode_)) +
                                  " weights cannot hold: not finite, or beyond 65504");
    }
    encoded.weight.bytes = encoded.copy;
    return encoded;
  }

  const std::unique_ptr<ModelSource> owned_;
  const WeightMode mode_;
  const unsigned threads_;
};

}  // namespace

Result<WeightMode> ParseWeightMode(std::string_view name) {
  for (size_t i = 0; i < kModeNames.size(); ++i) {
    if (kModeNames[i] == name) return static_cast<WeightMode>(i);
  }
  return InvalidArgumentError("weights '" + std::string(name) +
                              "' are none of auto, bf16, int8, int4");
}

WeightType KeptType(WeightMode mode, WeightRole role, WeightType type, uint32_t cols) {
  if (mode == WeightMode::kAuto || role == WeightRole::kRouter) return type;
  const bool table = role == WeightRole::kTable;
  const WeightType wanted = TypeOf(mode == WeightMode::kInt4 && table ? WeightMode::kInt8 : mode);
  const bool whole = cols % FindWeightType(static_cast<uint32_t>(wanted))->block_elements == 0;
  return whole && BitsOf(wanted) < BitsOf(type) ? wanted : type;
}

std::unique_ptr<ModelSource> WithWeights(std::unique_ptr<ModelSource> source, WeightMode mode,
                                         unsigned threads) {
  const std::vector<TensorSize> sizes = source->TensorSizes();
  const bool changes = std::any_of(sizes.begin(), sizes.end(), [&](const TensorSize& size) {
    return size.matrix && KeptType(mode, size.role, size.type, size.cols) != size.type;
  });
  if (!changes) return source;
  return std::make_unique<QuantizedSource>(std::move(source), mode, threads);
}

}  // namespace corpusd
