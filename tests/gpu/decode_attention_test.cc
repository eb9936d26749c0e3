// Decode attention over coded tiles on a CUDA device against float64 on the CPU.
#include "kernels/cuda/decode_attention.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

int Multiprocessors() {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0);
  return count;
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) { cudaMalloc(&data_, count * sizeof(T)); }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) {
    cudaMemcpy(data_, from.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> to(count_);
    cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return to;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

struct Size {
  int heads, rows, tokens;
};

// Random codes and scales, laid out as blocks in a shuffled order.
template <int Bits, int Dim>
struct Problem {
  using Tile = CodedTile<Bits, Dim>;
  Size size;
  int tiles;
  std::vector<std::vector<uint8_t>> codes, scales;  // [(tile * heads + head) * 2 + is_value]
  std::vector<uint8_t> memory;
  std::vector<size_t> places;  // of block i in memory
  std::vector<float> queries;

  explicit Problem(const Size& s, unsigned seed) : size(s), tiles((s.tokens + 127) / 128) {
    std::mt19937 random(seed);
    const size_t block_bytes = size_t{2} * size.heads * Tile::kBytes;
    memory.resize(tiles * block_bytes);
    for (int tile = 0; tile < tiles; ++tile) {
      places.push_back((static_cast<size_t>(tile) * 7919 % tiles) * block_bytes);
      for (int i = 0; i < 2 * size.heads; ++i) {
        auto& code = codes.emplace_back(kTileTokens * Dim);
        auto& scale = scales.emplace_back(kTileTokens);
        for (uint8_t& x : code) x = random() & ((1 << Bits) - 1);
        const bool value = i % 2 == 1;  // every scale byte; of keys those of 1/2 .. 2
        for (uint8_t& x : scale) x = value ? random() & 255 : 128 + random() % 64;
        auto built = BuildCodedTile<Bits, Dim>(code, scale, value);
        // The means and the padding are not read.
        std::fill(built.begin() + Tile::kCodeBytes + kTileTokens, built.end(), 0xA5);
        const size_t offset = (i % 2 * size.heads + i / 2) * size_t{Tile::kBytes};
        std::copy(built.begin(), built.end(), memory.begin() + places.back() + offset);
      }
    }
    // Scores with a deviation of about 4 octaves: neither flat nor one token alone.
    const double code_deviation = (1 << Bits) / std::sqrt(12.0);
    std::normal_distribution<float> normal(
        0, static_cast<float>(4 / (std::sqrt(double{Dim}) * code_deviation)));
    queries.resize(static_cast<size_t>(size.heads) * size.rows * Dim);
    for (float& x : queries) x = normal(random);
  }

  double Value(int tile, int head, bool value, int token, int dim) const {
    const size_t at = (static_cast<size_t>(tile) * size.heads + head) * 2 + value;
    return (codes[at][token * Dim + dim] - double{MidCode<Bits>()}) *
           ScaleOfByte(scales[at][token]);
  }
  // RETURNS the log2 of the sum of 2^score.
  double Reference(int head, int row, std::vector<double>* output) const {
    const float* q = &queries[(static_cast<size_t>(head) * size.rows + row) * Dim];
    std::vector<double> scores(size.tokens);
    double top = -1e300, sum = 0;
    for (int i = 0; i < size.tokens; ++i) {
      for (int d = 0; d < Dim; ++d) scores[i] += q[d] * Value(i / 128, head, false, i % 128, d);
      top = std::max(top, scores[i]);
    }
    output->assign(Dim, 0);
    for (int i = 0; i < size.tokens; ++i) {
      const double p = std::exp2(scores[i] - top);
      sum += p;
      for (int d = 0; d < Dim; ++d) (*output)[d] += p * Value(i / 128, head, true, i % 128, d);
    }
    for (double& x : *output) x /= sum;
    return top + std::log2(sum);
  }
};

template <int Bits, int Dim>
void Check(const Size& size, int launches = 1) {
  SCOPED_TRACE(testing::Message() << Bits << " bits, " << Dim << " dims, " << size.heads
                                  << " heads, " << size.rows << " rows, " << size.tokens
                                  << " tokens");
  using Tile = CodedTile<Bits, Dim>;
  const Problem<Bits, Dim> problem(size, Bits * 1000 + Dim + size.tokens);
  const DeviceArray<uint8_t> memory(problem.memory);
  std::vector<const uint8_t*> pointers;
  for (const size_t place : problem.places) pointers.push_back(memory.get() + place);
  const DeviceArray<const uint8_t*> blocks(pointers);
  const DeviceArray<float> queries(problem.queries);
  const float poison = std::numeric_limits<float>::quiet_NaN();
  const DeviceArray<float> outputs(std::vector<float>(problem.queries.size(), poison));
  const DeviceArray<float> sums(std::vector<float>(size.heads * size.rows, poison));
  DecodeAttention request;
  request.bits = Bits, request.head_dim = Dim, request.kv_heads = size.heads;
  request.query_rows = size.rows, request.tokens = size.tokens, request.blocks = blocks.get();
  request.value_offset = uint64_t{Tile::kBytes} * size.heads, request.tile_stride = Tile::kBytes;
  request.queries = queries.get(), request.outputs = outputs.get(), request.log_sums = sums.get();
  const DeviceArray<uint8_t> workspace(
      std::vector<uint8_t>(DecodeWorkspaceBytes(request, Multiprocessors())));
  request.workspace = workspace.get();
  ASSERT_EQ(CheckDecodeAttention(request), nullptr);
  for (int i = 0; i < launches; ++i) {
    ASSERT_EQ(LaunchDecodeAttention(request, Multiprocessors(), nullptr), cudaSuccess);
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<float> got = outputs.Read(), got_sums = sums.Read();
  double error = 0, norm = 0;
  std::vector<double> want;
  for (int head = 0; head < size.heads; ++head) {
    for (int row = 0; row < size.rows; ++row) {
      const size_t at = static_cast<size_t>(head) * size.rows + row;
      EXPECT_NEAR(got_sums[at], problem.Reference(head, row, &want), 0.02);
      for (int d = 0; d < Dim; ++d) {
        const double x = got[at * Dim + d];
        error += (x - want[d]) * (x - want[d]), norm += want[d] * want[d];
      }
    }
  }
  // Halves round q and p to 2^-11 and the accumulators hold offsets of 1024 steps: a few 1e-3.
  EXPECT_LT(std::sqrt(error / norm), 5e-3);
}

template <int Bits>
void CheckWidth() {
  Check<Bits, 64>({3, 3, 1000});
  Check<Bits, 128>({2, 5, 1300});
  Check<Bits, 64>({1, 1, 1});
  Check<Bits, 128>({1, 8, 127});
  Check<Bits, 64>({2, 16, 4096 + 5});
  Check<Bits, 128>({8, 9, 129});
  Check<Bits, 128>({1, 4, 40000}, 3);  // every multiprocessor; counters are ready again
}

TEST(DecodeAttention, TwoBits) { CheckWidth<2>(); }
TEST(DecodeAttention, ThreeBits) { CheckWidth<3>(); }
TEST(DecodeAttention, FourBits) { CheckWidth<4>(); }
TEST(DecodeAttention, EightBits) { CheckWidth<8>(); }

TEST(DecodeAttention, SaysWhatIsWrongWithARequest) {
  DecodeAttention request;
  EXPECT_STREQ(CheckDecodeAttention(request), "the code width must be 2, 3, 4 or 8 bits");
  request.bits = 4;
  EXPECT_STREQ(CheckDecodeAttention(request), "the head size must be 64 or 128");
  request.head_dim = 64, request.kv_heads = 1, request.query_rows = 17, request.tokens = 1;
  EXPECT_STREQ(CheckDecodeAttention(request),
               "a KV head may have 1 to 16 query rows: split the questions");
  request.query_rows = 1, request.tile_stride = 8;
  EXPECT_STREQ(CheckDecodeAttention(request), "tiles must be aligned to 16 bytes");
}

}  // namespace
}  // namespace corpusd::cuda
