// engine/backend/backend.h -- one device as the operations a transformer needs; models are written
// once over it. One caller at a time per Backend (the compute gate sees to it); calls may return
// before the work is done, Synchronize waits and reports device errors. Row r of an output depends
// on row r of the input alone, never on how many rows came with it, nor on the thread count: that
// makes resumed prefills and batched queries byte-identical. But MatMul and Attention of at most
// few_rows() rows may use other arithmetic; the row count of the call alone decides. Matrices and
// pages are the backend's memory, pages of a store may be the host's. Gains, rope tables and bases
// are host arrays that a backend may keep a copy of: they must not change while they are in use.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "engine/backend/buffer.h"
#include "kernels/kv_basis.h"
#include "kernels/shapes.h"
#include "store/base/result.h"

namespace corpusd {

// Where the K and V of a run of new tokens go: slots [first_slot, first_slot + rows) of one block.
// The cq codecs need a basis, and all tokens that the block will hold at once (first_slot 0). Bf16
// pages with a basis hold its coordinates, y = (x - mean) * forward.
struct KvWriteTarget {
  const KvFormat* format = nullptr;
  std::byte* block = nullptr;  // KvFormat::BlockBytes()
  uint32_t layer = 0;
  uint32_t first_slot = 0;
  const KvBasis* basis = nullptr;  // [kv_heads], of this layer; null: plain keys and values
};

struct AttentionInput {
  AttentionShape shape;
  uint32_t layer = 0;
  uint64_t first_position = 0;        // position of query row 0; row r is at first_position + r
  std::span<const KvPageList> lists;  // a key is visible if its position <= the query's
  const RopeTable* rope = nullptr;    // null: the layer has no positions (NoPE)
  const KvBasis* basis = nullptr;     // [kv_heads], of this layer: all pages hold its coordinates
};

// Rows of one sequence in a call over several.
struct AttentionPart {
  AttentionInput input;
  uint32_t rows = 0;
};

struct CopyPiece {
  std::byte* target = nullptr;
  const std::byte* source = nullptr;
  uint64_t bytes = 0;
};

// Pages of one layer that come one piece after the other, so that not all of them are in memory.
class PagePieces {
 public:
  virtual ~PagePieces() = default;
  // The next pages in order, valid until the next call; none: those were all. Every piece but the
  // last has a multiple of kPartPages.
  virtual Result<std::span<const KvPageList>> Next() = 0;
};

// A feed-forward part that some tokens go through: down * SwiGlu(gate_up * x).
struct Expert {
  std::unique_ptr<Weight> gate_up;  // [2 f, hidden]
  std::unique_ptr<Weight> down;     // [hidden, f]
};

struct ExpertInput {
  MatrixView x;                     // [n, hidden]
  MatrixView logits;                // [n, experts]
  std::span<const Expert> experts;  // all of one f
  uint32_t used = 1;                // experts of a row
  // Lent, of at least n rows: gathered and result [hidden], gate_up [2 f], activated [f].
  MatrixView gathered, result, gate_up, activated;
};

// The purpose that ForwardScratch names: rows that products read and write.
inline constexpr std::string_view kActivations = "activations";

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;       // such as "cpu-avx2"
  virtual uint32_t few_rows() const { return 0; }  // 0: one arithmetic for all calls
  // Rows that keep the device busy: what is computed together when there is so much. No result
  // depends on it.
  virtual uint32_t batch_rows() const { return 512; }
  // kUnimplemented if the device has no attention for these heads.
  virtual Status Supports(const AttentionShape& shape) const {
    (void)shape;
    return OkStatus();
  }

  virtual Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) = 0;
  // Memory, zeroed, that the CPU reads and writes as well, between Synchronize and the next call;
  // for what is small or read on the CPU anyway. On a CPU all memory is such.
  virtual Result<std::unique_ptr<Buffer>> AllocateShared(uint64_t bytes, std::string_view purpose) {
    return Allocate(bytes, purpose);
  }
  // Zeroes memory of a buffer, in the order of the calls. Any thread.
  virtual void Clear(std::byte* data, uint64_t bytes) { std::memset(data, 0, bytes); }
  // Copies between memories of either kind, and waits for it. Any thread.
  virtual Status Copy(std::byte* target, const std::byte* source, uint64_t bytes) {
    std::memcpy(target, source, bytes);
    return OkStatus();
  }
  // The same for several pieces beside what is computed meanwhile: sources were made before the
  // last Synchronize, targets are in no other use. Any thread.
  virtual Status CopyBeside(std::span<const CopyPiece> pieces) {
    for (const CopyPiece& piece : pieces) std::memcpy(piece.target, piece.source, piece.bytes);
    return OkStatus();
  }
  // Whether the CPU can read what Allocate gave.
  virtual bool host_addressable() const { return true; }
  // Repacks the sources, stacked by rows, into one weight. REQUIRES: equal cols.
  virtual Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) = 0;

  // out[i, :] = table[ids[i], :]
  virtual void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) = 0;
  // out = x / rms(x) * gain, per row; gain has x.cols elements.
  virtual void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) = 0;
  // out = x * weight^T, or out += x * weight^T. [n, rows] = [n, cols] * [rows, cols]^T
  virtual void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) = 0;
  // out[n, f] = silu(gate_up[n, 0:f]) * gate_up[n, f:2f]
  virtual void SwiGlu(MatrixView out, MatrixView gate_up) = 0;
  // keys, values: [n, kv_heads * head_dim]. Rotates each key by its slot (unless rope is null),
  // encodes, writes.
  virtual void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
                       const RopeTable* rope) = 0;
  // The same for several sequences: row r of keys and values goes to targets[r] alone. REQUIRES:
  // one layer and rope.
  virtual void WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys,
                           MatrixView values, const RopeTable* rope) {
    for (uint32_t r = 0; r < keys.rows; ++r) {
      WriteKv(targets[r], keys.Rows(r, 1), values.Rows(r, 1), rope);
    }
  }
  // q, out: [n, q_heads * head_dim]; q is not rotated yet.
  virtual void Attention(MatrixView out, MatrixView q, const AttentionInput& input) = 0;
  // Row r of q over rows[r], as Attention of that row alone, bit for bit; pages that neighbouring
  // rows have in common from the first on are read once for all of them. REQUIRES: q.rows ==
  // rows.size(), at most few_rows() of them unless that is 0; one layer, shape and rope; every row
  // sees all tokens of its pages.
  virtual void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) {
    for (uint32_t r = 0; r < q.rows; ++r) Attention(out.Rows(r, 1), q.Rows(r, 1), rows[r]);
  }
  // As Attention of every part; the rows of part i follow those of part i - 1. REQUIRES: one layer,
  // rope and basis.
  virtual void AttentionOfParts(MatrixView out, MatrixView q,
                                std::span<const AttentionPart> parts) {
    uint32_t row = 0;
    for (const AttentionPart& part : parts) {
      Attention(out.Rows(row, part.rows), q.Rows(row, part.rows), part.input);
      row += part.rows;
    }
  }
  // As Attention over the pages of all pieces, bit for bit. input.lists: as long as all of them,
  // but of its pages no byte is read.
  virtual Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                                   PagePieces& pieces) {
    (void)out, (void)q, (void)input, (void)pieces;
    return UnimplementedError(std::string(name()) + " attends to pages in memory only");
  }
  virtual Status Synchronize() = 0;

  // What follows has default implementations over the operations above, for memory that the host
  // can address.

  // Each head of each row of x, in place: head / rms(head) * gain; gain has head_dim elements.
  virtual void HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon);
  // x[r, :] *= factors[r]
  virtual void ScaleRows(MatrixView x, std::span<const float> factors);
  // x[r, :] += bias; bias has x.cols elements.
  virtual void AddBias(MatrixView x, const float* bias);
  // x += y
  virtual void Add(MatrixView x, MatrixView y);
  // target = source, of equal shape, in no memory of each other.
  virtual void CopyMatrix(MatrixView target, MatrixView source);
  // out[n, f] = gelu(gate_up[n, f]) * gate_up[n, out.cols + f], with gelu by the tanh formula.
  virtual void GeGlu(MatrixView out, MatrixView gate_up);
  // out[r, :] += the sum, over the `used` experts of row r with the largest logits (the first ones,
  // if they are equal), of that expert's output for sigmoid(logit) * x[r, :]. The choice of
  // arithmetic depends on x.rows, as everywhere, not on how many rows an expert gets.
  virtual void MixExperts(MatrixView out, const ExpertInput& input);
};

}  // namespace corpusd
