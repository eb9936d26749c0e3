#include "tests/bench/random_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/reference/kv_tile.h"

namespace corpusd {
namespace {

// Blocks that all matrices are cut from, each at a place of its own.
constexpr uint64_t kPoolBlocks = uint64_t{1} << 21;
constexpr uint64_t kPlaces = uint64_t{1} << 18;
constexpr uint32_t kBlockBytes = 20;
constexpr double kCodeDeviation = 4.61;  // of numbers 0 .. 15, all alike

// Of positive normal numbers that a half has.
uint16_t HalfBits(double value) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(std::abs(value)));
  const auto exponent = static_cast<int>(bits >> 23) - 127 + 15;
  const auto half = static_cast<uint16_t>(std::max(exponent, 0) << 10 | (bits >> 13 & 0x3FF));
  return static_cast<uint16_t>(half | (value < 0 ? 0x8000 : 0));
}

class RandomModel final : public ModelSource {
 public:
  explicit RandomModel(ModelConfig config)
      : config_(std::move(config)), pool_((kPoolBlocks + kPlaces) * kBlockBytes) {
    std::mt19937_64 random(1);
    for (size_t i = 0; i + 8 <= pool_.size(); i += 8) {
      const uint64_t word = random();
      std::memcpy(&pool_[i], &word, sizeof word);
    }
    // Rows of all matrices have the scale of the widest: the norms before them take the rest.
    const double scale = 1 / std::sqrt(static_cast<double>(config_.hidden)) / kCodeDeviation;
    for (size_t block = 0; block < kPoolBlocks + kPlaces; ++block) {
      const double d = scale * (0.5 + static_cast<double>(block * 40503 % 1024) / 1024);
      const uint16_t halves[2] = {HalfBits(d), HalfBits(-7.5 * d)};
      std::memcpy(&pool_[block * kBlockBytes], halves, sizeof halves);
    }
  }

  const std::string& path() const override { return path_; }
  const ModelConfig& config() const override { return config_; }
  bool Has(const std::string& tensor) const override {
    return tensor == "output.weight" || tensor == "token_embd.weight";
  }
  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override {
    const bool wide = Has(tensor) || tensor.find("ffn_gate_inp") != std::string::npos;
    return wide ? Wide(tensor, rows, cols) : Blocks(tensor, rows, cols, 0);
  }
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert,
                                    uint32_t /*experts*/, uint32_t rows,
                                    uint32_t cols) const override {
    return Blocks(tensor, rows, cols, expert + 1);
  }
  Result<std::vector<float>> Vector(const std::string& /*tensor*/, uint32_t count) const override {
    return std::vector<float>(count, 1.0F);
  }
  std::vector<TensorSize> TensorSizes() const override { return {}; }
  Result<std::string> WeightsDigestHex(const std::string& /*cache_dir*/) const override {
    return std::string(64, '0');
  }
  Result<std::unique_ptr<Tokenizer>> LoadTokenizer() const override { return None("tokenizer"); }
  Result<ChatTemplate> LoadChatTemplate(const Tokenizer& /*tokenizer*/) const override {
    return None("chat template");
  }
  std::optional<TokenId> StartToken() const override { return std::nullopt; }

 private:
  static Status None(const std::string& what) {
    return UnimplementedError("a random model has no " + what);
  }

  Result<SourceMatrix> Blocks(const std::string& tensor, uint32_t rows, uint32_t cols,
                              uint32_t expert) const {
    const uint64_t blocks = uint64_t{rows} * cols / 32;
    if (cols % 32 != 0 || blocks > kPoolBlocks) {
      return UnimplementedError(tensor + " is larger than the pool of random blocks");
    }
    const uint64_t place = (std::hash<std::string>{}(tensor) + expert * 7919) % kPlaces;
    SourceMatrix matrix;
    matrix.weight = {tensor, WeightType::kQ4_1, rows, cols,
                     std::span(pool_).subspan(place * kBlockBytes, blocks * kBlockBytes)};
    return matrix;
  }

  static Result<SourceMatrix> Wide(const std::string& tensor, uint32_t rows, uint32_t cols) {
    SourceMatrix matrix;
    matrix.copy.resize(uint64_t{rows} * cols * 2);
    std::mt19937 random(static_cast<uint32_t>(tensor.size()));
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
    // Some million numbers, again and again.
    const uint64_t some = std::min<uint64_t>(matrix.copy.size(), uint64_t{8} << 20);
    for (uint64_t i = 0; i < some; i += 2) {
      const uint16_t bits = Bf16FromFloat(normal(random));
      std::memcpy(&matrix.copy[i], &bits, sizeof bits);
    }
    for (uint64_t done = some; done < matrix.copy.size(); done += some) {
      std::memcpy(&matrix.copy[done], matrix.copy.data(),
                  std::min<uint64_t>(some, matrix.copy.size() - done));
    }
    matrix.weight = {tensor, WeightType::kBf16, rows, cols, matrix.copy};
    return matrix;
  }

  const std::string path_ = "random";
  const ModelConfig config_;
  std::vector<std::byte> pool_;
};

}  // namespace

std::unique_ptr<ModelSource> MakeRandomModel(ModelConfig config) {
  return std::make_unique<RandomModel>(std::move(config));
}

}  // namespace corpusd
