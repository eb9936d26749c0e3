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

// Codes a bf16 page; its keys are rotated by their slot already and keep their slots.
Result<KeptPage> Encode(Backend& backend, const KvFormat& exact, const KvFormat& coded,
                        const KvSequence::OwnBlock& block) {
  ASSIGN_OR_RETURN(auto bytes, backend.Allocate(coded.BlockBytes(), "kept KV page"));
  std::memset(bytes->data(), 0, bytes->bytes());
  std::vector<float> row(coded.head_dim);
  for (uint32_t layer = 0; layer < coded.layers; ++layer) {
    for (uint32_t head = 0; head < coded.kv_heads; ++head) {
      const std::byte* const keys = block.bytes.data() + exact.KeyTileOffset(layer, head);
      const std::byte* const values = block.bytes.data() + exact.ValueTileOffset(layer, head);
      for (uint32_t token = 0; token < block.tokens; ++token) {
        ReadKey(row.data(), keys, exact, token);
        WriteKey(bytes->data() + coded.KeyTileOffset(layer, head), coded, token, row.data(),
                 nullptr);
        ReadValue(row.data(), values, exact, token);
        WriteValue(bytes->data() + coded.ValueTileOffset(layer, head), coded, token, row.data());
      }
    }
  }
  return KeptPage{&coded, std::move(bytes), block.tokens};
}

class WindowRunner {
 public:
  WindowRunner(ModelSession& session, const KvFormat& exact, const KvFormat& coded)
      : session_(session), exact_(exact), coded_(coded) {}

  Status Run(std::span<const TokenId> window, const KvReadback& readback, const RowFunction& rows) {
    const size_t sinks = std::min<size_t>(readback.sinks, window.size());
    if (sinks > 0) RETURN_IF_ERROR(Piece(window.first(sinks), exact_, false, rows));
    const size_t step = readback.tail > 0 ? readback.tail : window.size();
    for (size_t first = sinks; first < window.size(); first += step) {
      const auto piece = window.subspan(first, std::min(step, window.size() - first));
      RETURN_IF_ERROR(readback.tail > 0 ? Piece(piece, exact_, true, rows)
                                        : Piece(piece, coded_, false, rows));
    }
    return OkStatus();
  }

 private:
  // Runs the tokens that follow pages_ with a cache of their own in `own`, then keeps its pages, as
  // they are or coded.
  Status Piece(std::span<const TokenId> tokens, const KvFormat& own, bool encode,
               const RowFunction& rows) {
    KvSequence kv(coded_, own);
    for (const KeptPage& page : pages_) kv.AddShared(*page.format, page.bytes->data(), page.tokens);
    const auto before = static_cast<size_t>(kv.tokens());
    RETURN_IF_ERROR(session_.Run(tokens, kv, [&](size_t row, std::span<const float> logits) {
      rows(before + row, logits);
    }));
    for (const KvSequence::OwnBlock& block : kv.OwnBlocks()) {
      ASSIGN_OR_RETURN(auto page, encode ? Encode(session_.backend(), exact_, coded_, block)
                                         : Copy(session_.backend(), own, block));
      pages_.push_back(std::move(page));
    }
    return OkStatus();
  }

  ModelSession& session_;
  const KvFormat exact_;
  const KvFormat coded_;
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
  ASSIGN_OR_RETURN(const KvFormat exact, session.model().Format("bf16"));
  ASSIGN_OR_RETURN(const KvFormat coded, session.model().Format(readback.format));
  return WindowRunner(session, exact, coded).Run(window, readback, rows);
}

}  // namespace corpusd
