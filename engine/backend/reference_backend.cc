#include "engine/backend/reference_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "engine/backend/host_buffer.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"
#include "kernels/reference/matmul.h"
#include "kernels/reference/normalize.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

class ReferenceWeight : public Weight {
 public:
  ReferenceWeight(std::unique_ptr<HostBuffer> buffer, uint32_t rows, uint32_t cols)
      : buffer_(std::move(buffer)), rows_(rows), cols_(cols) {}
  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override { return buffer_->bytes(); }
  float* row(uint32_t r) const {
    return reinterpret_cast<float*>(buffer_->data()) + size_t{r} * cols_;
  }

 private:
  std::unique_ptr<HostBuffer> buffer_;
  uint32_t rows_;
  uint32_t cols_;
};

const ReferenceWeight& Cast(const Weight& weight) {
  return static_cast<const ReferenceWeight&>(weight);
}

// Rows of one KV head into a tile; coordinates null: as they are.
void WriteRows(std::byte* tile, const KvFormat& format, uint32_t layer, bool is_key,
               const KvRows& rows) {
  const LayerCodecs codecs = format.CodecsOf(layer);
  const KvCodec codec = is_key ? codecs.key : codecs.value;
  if (IsCoded(codec)) return ReferenceEncodeTile(tile, codec, is_key, rows);
  std::vector<float> y(rows.head_dim);
  for (uint32_t r = 0; r < rows.rows; ++r) {
    const uint32_t slot = rows.first_slot + r;
    const float* x = rows.row(r);
    const RopeTable* rope = rows.rope;
    if (rows.coordinates != nullptr) {
      KvRows row = rows;
      row.data = x;
      row.rows = 1;
      row.first_slot = slot;
      ReferenceToCoordinates(y.data(), row);
      x = y.data();
      rope = nullptr;
    }
    if (is_key) {
      WriteKey(tile, format, slot, x, rope);
    } else {
      WriteValue(tile, format, slot, x);
    }
  }
}

class ReferenceBackend : public Backend {
 public:
  std::string_view name() const override { return "reference"; }

  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    ASSIGN_OR_RETURN(auto buffer, HostBuffer::Create(bytes, purpose));
    return std::unique_ptr<Buffer>(std::move(buffer));
  }

  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override {
    CHECK(!sources.empty());
    const uint32_t cols = sources[0].cols;
    uint64_t rows = 0;
    for (const WeightSource& source : sources) {
      CHECK(source.cols == cols) << source.name;
      rows += source.rows;
    }
    ASSIGN_OR_RETURN(auto buffer, HostBuffer::Create(rows * cols * 4, "weight " + sources[0].name));
    auto weight =
        std::make_unique<ReferenceWeight>(std::move(buffer), static_cast<uint32_t>(rows), cols);
    uint32_t target = 0;
    for (const WeightSource& source : sources) {
      const uint64_t row_bytes = WeightRowBytes(source.type, cols);
      for (uint32_t r = 0; r < source.rows; ++r) {
        DequantizeRow(source.type, source.bytes.data() + r * row_bytes, weight->row(target++),
                      cols);
      }
    }
    return std::unique_ptr<Weight>(std::move(weight));
  }

  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    for (uint32_t i = 0; i < ids.size(); ++i) {
      CHECK(ids[i] < table.rows()) << "token " << ids[i] << " of " << table.rows();
      std::memcpy(out.row(i), Cast(table).row(ids[i]), size_t{table.cols()} * 4);
    }
  }

  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    ReferenceRmsNorm(out, x, gain, epsilon);
  }

  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows);
    ReferenceMatMul(out, x, Cast(weight).row(0), accumulate);
  }

  void SwiGlu(MatrixView out, MatrixView gate_up) override { ReferenceSwiGlu(out, gate_up); }

  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override {
    const KvFormat& format = *target.format;
    CHECK(target.first_slot + keys.rows <= format.block_tokens);
    for (uint32_t h = 0; h < format.kv_heads; ++h) {
      const size_t column = size_t{h} * format.head_dim;
      KvRows rows{.data = keys.data + column,
                  .stride = keys.row_stride,
                  .rows = keys.rows,
                  .head_dim = format.head_dim,
                  .first_slot = target.first_slot,
                  .rope = rope,
                  .coordinates = target.basis == nullptr ? nullptr : &target.basis[h].key};
      WriteRows(target.block + format.KeyTileOffset(target.layer, h), format, target.layer, true,
                rows);
      rows.data = values.data + column;
      rows.stride = values.row_stride;
      rows.rope = nullptr;
      if (target.basis != nullptr) rows.coordinates = &target.basis[h].value;
      WriteRows(target.block + format.ValueTileOffset(target.layer, h), format, target.layer, false,
                rows);
    }
  }

  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    size_t tokens = 0;
    for (const KvPageList& list : input.lists) {
      for (const KvPage& page : list.pages) tokens += page.tokens;
    }
    scores_.resize(std::max(tokens, scores_.size()));
    const ReferenceAttentionTask task{.shape = input.shape,
                                      .layer = input.layer,
                                      .first_position = input.first_position,
                                      .lists = input.lists,
                                      .rope = input.rope,
                                      .basis = input.basis};
    ReferenceAttention(out, q, task, scores_);
  }

  Status Synchronize() override { return OkStatus(); }

 private:
  std::vector<double> scores_;
};

}  // namespace

std::unique_ptr<Backend> MakeReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace corpusd
