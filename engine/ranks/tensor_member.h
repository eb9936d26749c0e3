// engine/ranks/tensor_member.h -- one of several devices that share a model's weights, and what it
// does in the calls that all of them make alike: its products, and the exchanges that put columns
// of all together. Views are of its own memory. All calls on one thread, but Abort.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/tensor_ops.h"
#include "engine/ranks/parted_weight.h"
#include "engine/ranks/transport.h"

namespace corpusd {

class TensorMember {
 public:
  // backend: what computes; ops: of it, or of what lies below. Both must outlive this.
  TensorMember(uint32_t rank, uint32_t count, Backend& backend, TensorOps& ops)
      : rank_(rank), count_(count), backend_(backend), ops_(ops) {}

  uint32_t rank() const { return rank_; }
  Backend& backend() { return backend_; }
  TensorOps& ops() { return ops_; }

  // The way to the others, all of which call alike. Lets the one before go.
  void Join(std::unique_ptr<Transport> transport, std::unique_ptr<DeviceLink> link);
  bool joined() const { return transport_ != nullptr; }
  void Leave();
  void Abort(const Status& why) {
    if (transport_ != nullptr) transport_->Abort(why);
  }

  // Memory for what is exchanged: at least so many bytes from now on.
  Status Reserve(uint64_t bytes);
  uint64_t reserved_bytes() const { return staging_ == nullptr ? 0 : staging_->bytes(); }
  // Of what it has sent, payload only.
  uint64_t sent_bytes() const { return sent_bytes_; }

  // Columns [rank * cols / count ..) of each matrix, of every device its own, from where they are
  // to everywhere, in one exchange. One or two matrices, of equal rows.
  void JoinColumns(std::span<const MatrixView> matrices);
  void JoinColumns(MatrixView m) { JoinColumns({&m, 1}); }
  MatrixView OwnColumns(MatrixView m) const {
    const uint32_t own = m.cols / count_;
    return m.Cols(rank_ * own, own);
  }
  // m, contiguous, from the first device to all.
  void FromFirst(MatrixView m);
  // The product of the own part, and its outputs to the first device's `out`, where they belong;
  // other devices have no `out`.
  void ToFirst(MatrixView out, MatrixView x, const PartedWeight& weight);
  // ids: rows of the own part, that of zeros among them.
  void Embed(MatrixView out, const Weight& part, std::span<const uint32_t> ids);

 private:
  float* staging() { return reinterpret_cast<float*>(staging_->data()); }
  void Message(uint32_t other, bool sends, float* data, uint64_t floats);
  void Exchange();

  const uint32_t rank_, count_;
  Backend& backend_;
  TensorOps& ops_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<DeviceLink> own_link_;  // null: the transport's
  DeviceLink* link_ = nullptr;
  std::unique_ptr<Buffer> staging_;
  std::array<DeviceMessage, kDeviceMessagesMax> messages_;
  uint32_t message_count_ = 0;
  uint64_t sent_bytes_ = 0;
};

}  // namespace corpusd
