#include "tests/eval/window_runner.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/reference/kv_tile.h"

namespace corpusd {
namespace {

using RowFunction = std::function<void(size_t row, std::span<const float> logits)>;

// A page outside of a KvSequence.
struct KeptPage {
  const KvFormat* format;
  std::unique_ptr<Buffer> bytes;
  uint32_t tokens;
};

Result<KeptPage> Copy(Backend& backend, const KvFormat& format, const KvSequence::OwnBlock& block) {
  ASSIGN_OR_RETURN(auto bytes, backend.Allocate(format.BlockBytes(), "kept KV page"));
  std::memcpy(bytes->data(), block.bytes.data(), block.bytes.size());
  return KeptPage{&format, std::move(bytes), block.tokens};
}

// For rows that are in a calibration's coordinates already: the map is the identity, the encoder's
// weights are those of the calibration.
class CoordinateRows {
 public:
  explicit CoordinateRows(const KvLayout& layout)
      : calibration_(layout.calibration),
        identity_(size_t{layout.own.head_dim} * Dim(layout)),
        zeros_(Dim(layout)) {
    for (size_t i = 0; i < zeros_.size(); ++i) identity_[i * zeros_.size() + i] = 1;
  }

  // [kv_heads] of a layer; null if the format is not coded. Valid until the next call.
  const KvBasis* layer(uint32_t index) {
    if (calibration_ == nullptr) return nullptr;
    const KvBasis* const source = calibration_->layer(index);
    bases_.assign(source, source + calibration_->shape().kv_heads);
    for (KvBasis& basis : bases_) {
      for (KvCoordinates* side : {&basis.key, &basis.value}) {
        side->forward = side->inverse = side->query = identity_.data();
        side->mean = side->mean_coordinates = zeros_.data();
      }
    }
    return bases_.data();
  }

 private:
  static size_t Dim(const KvLayout& layout) { return layout.own.head_dim; }

  const KvCalibration* calibration_;
  std::vector<float> identity_, zeros_;
  std::vector<KvBasis> bases_;
};

// Codes a bf16 page; its keys are rotated by their slot already and keep their slots.
Result<KeptPage> Encode(Backend& backend, const KvLayout& layout,
                        const KvSequence::OwnBlock& block) {
  const KvFormat& exact = layout.own;
  const KvFormat& coded = layout.blocks;
  ASSIGN_OR_RETURN(auto bytes, backend.Allocate(coded.BlockBytes(), "kept KV page"));
  std::memset(bytes->data(), 0, bytes->bytes());
  const uint32_t cols = coded.kv_heads * coded.head_dim;
  std::vector<float> keys(size_t{block.tokens} * cols), values(keys.size());
  CoordinateRows coordinates(layout);
  for (uint32_t layer = 0; layer < coded.layers; ++layer) {
    for (uint32_t head = 0; head < coded.kv_heads; ++head) {
      const size_t column = size_t{head} * coded.head_dim;
      for (uint32_t token = 0; token < block.tokens; ++token) {
        ReadKey(keys.data() + size_t{token} * cols + column,
                block.bytes.data() + exact.KeyTileOffset(layer, head), exact, token);
        ReadValue(values.data() + size_t{token} * cols + column,
                  block.bytes.data() + exact.ValueTileOffset(layer, head), exact, token);
      }
    }
    backend.WriteKv({&coded, bytes->data(), layer, 0, coordinates.layer(layer)},
                    {keys.data(), block.tokens, cols, cols},
                    {values.data(), block.tokens, cols, cols}, /*rope=*/nullptr);
  }
  return KeptPage{&coded, std::move(bytes), block.tokens};
}

class WindowRunner {
 public:
  WindowRunner(ModelSession& session, const KvLayout& layout)
      : session_(session), layout_(layout) {}

  Status Run(std::span<const TokenId> window, const KvReadback& readback, const RowFunction& rows) {
    const size_t sinks = std::min<size_t>(readback.sinks, window.size());
    if (sinks > 0) RETURN_IF_ERROR(Piece(window.first(sinks), layout_.own, false, rows));
    const size_t step = readback.tail > 0 ? readback.tail : window.size();
    for (size_t first = sinks; first < window.size(); first += step) {
      const auto piece = window.subspan(first, std::min(step, window.size() - first));
      RETURN_IF_ERROR(readback.tail > 0 ? Piece(piece, layout_.own, true, rows)
                                        : Piece(piece, layout_.blocks, false, rows));
    }
    return OkStatus();
  }

 private:
  // Runs the tokens that follow pages_ with a cache of their own in `own`, then keeps its pages, as
  // they are or coded.
  Status Piece(std::span<const TokenId> tokens, const KvFormat& own, bool encode,
               const RowFunction& rows) {
    KvSequence kv({layout_.blocks, own, layout_.calibration, nullptr});
    for (const KeptPage& page : pages_)
      kv.AddShared(*page.format, {page.bytes->data(), page.tokens});
    const auto before = static_cast<size_t>(kv.tokens());
    RETURN_IF_ERROR(session_.Run(tokens, kv, [&](size_t row, std::span<const float> logits) {
      rows(before + row, logits);
    }));
    for (const KvSequence::OwnBlock& block : kv.OwnBlocks()) {
      ASSIGN_OR_RETURN(auto page, encode ? Encode(session_.backend(), layout_, block)
                                         : Copy(session_.backend(), own, block));
      pages_.push_back(std::move(page));
    }
    return OkStatus();
  }

  ModelSession& session_;
  const KvLayout layout_;
  std::vector<KeptPage> pages_;
};

}  // namespace

Status CheckReadback(const KvReadback& readback) {
  if (readback.sinks > kBlockTokens) {
    return InvalidArgumentError("--sink must be at most " + std::to_string(kBlockTokens));
  }
  if (readback.tail % kBlockTokens != 0) {
    return InvalidArgumentError("--tail must be 0 or a multiple of " +
                                std::to_string(kBlockTokens) +
                                ": tokens stay exact until their block is complete");
  }
  return OkStatus();
}

Status RunWindow(ModelSession& session, std::span<const TokenId> window, const KvReadback& readback,
                 const RowFunction& rows) {
  ASSIGN_OR_RETURN(const KvLayout layout, session.Layout(readback.format));
  return WindowRunner(session, layout).Run(window, readback, rows);
}

}  // namespace corpusd
