#include "engine/ranks/host_tensor_ops.h"

#include <algorithm>
#include <cstring>

#include "store/base/check.h"

namespace corpusd {
namespace {

class TransportLink final : public DeviceLink {
 public:
  explicit TransportLink(Transport& transport) : transport_(transport) {}
  int Enqueue(std::span<const DeviceMessage> messages, void* /*stream*/) override {
    std::vector<TransferPtr> transfers;
    for (const DeviceMessage& m : messages) {
      const std::span bytes(m.data, m.bytes);
      transfers.push_back(m.sends != 0 ? transport_.Send(m.other, bytes)
                                       : transport_.Receive(m.other, bytes));
    }
    return WaitAll(transfers).ok() ? 0 : 1;
  }
  int Gather(std::span<const DeviceParts> parts, void* /*stream*/) override {
    std::vector<TransferPtr> transfers;
    for (const DeviceParts& p : parts) {
      transfers.push_back(transport_.Gather({p.data, p.bytes * transport_.size()}));
    }
    return WaitAll(transfers).ok() ? 0 : 1;
  }

 private:
  Transport& transport_;
};

}  // namespace

std::unique_ptr<DeviceLink> LinkOver(Transport& transport) {
  return std::make_unique<TransportLink>(transport);
}

void HostTensorOps::Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) {
  if (link.Enqueue(messages, nullptr) != 0 && error_.ok()) {
    error_ = UnavailableError("another device was lost");
  }
}

void HostTensorOps::Gather(DeviceLink& link, std::span<const DeviceParts> parts) {
  if (link.Gather(parts, nullptr) != 0 && error_.ok()) {
    error_ = UnavailableError("another device was lost");
  }
}

void HostTensorOps::CopyColumns(MatrixView out, MatrixView in,
                                std::span<const ColumnPiece> pieces) {
  for (const ColumnPiece& piece : pieces) {
    backend_.CopyMatrix(out.Cols(piece.to, piece.count), in.Cols(piece.from, piece.count));
  }
}

uint32_t HostTensorOps::PaddedRows(uint32_t rows, uint32_t call_rows) const {
  return std::max(rows, call_rows > backend_.few_rows() ? backend_.few_rows() + 1 : 1);
}

MatrixView HostTensorOps::RaiseExperts(const ExpertParts& parts) {
  const ExpertInput& input = parts.input;
  const uint32_t n = input.x.rows, slots = n * input.used, hidden = input.x.cols;
  const uint32_t own = parts.gate_up.front()->rows() / 2, inner = parts.down.front()->cols();
  routed_ = RouteToExperts(input.logits, input.used);
  activated_.assign(size_t{slots} * inner, 0);
  const MatrixView activated{activated_.data(), slots, inner, inner};
  uint32_t first = 0;
  for (size_t e = 0; e < routed_.size(); ++e) {
    const ExpertRows& rows = routed_[e];
    const auto count = static_cast<uint32_t>(rows.rows.size());
    if (count == 0) continue;
    const uint32_t padded = PaddedRows(count, n);
    padded_.assign(size_t{padded} * hidden, 0);
    made_.assign(size_t{padded} * 3 * own, 0);
    const MatrixView x{padded_.data(), padded, hidden, hidden};
    const MatrixView gate_up{made_.data(), padded, 2 * own, 2 * own};
    const MatrixView made{made_.data() + size_t{padded} * 2 * own, padded, own, own};
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t c = 0; c < hidden; ++c) {
        x.row(i)[c] = input.x.row(rows.rows[i])[c] * rows.factors[i];
      }
    }
    backend_.MatMul(gate_up, x, *parts.gate_up[e], false);
    backend_.SwiGlu(made, gate_up);
    backend_.CopyMatrix(activated.Rows(first, count).Cols(parts.first, own), made.Rows(0, count));
    first += count;
  }
  return activated;
}

void HostTensorOps::LowerExperts(MatrixView out, const ExpertParts& parts) {
  const uint32_t n = parts.input.x.rows, inner = parts.down.front()->cols();
  const MatrixView activated{activated_.data(), n * parts.input.used, inner, inner};
  uint32_t first = 0;
  for (size_t e = 0; e < routed_.size(); ++e) {
    const auto count = static_cast<uint32_t>(routed_[e].rows.size());
    if (count == 0) continue;
    const uint32_t padded = PaddedRows(count, n);
    padded_.assign(size_t{padded} * inner, 0);
    made_.assign(size_t{padded} * out.cols, 0);
    const MatrixView x{padded_.data(), padded, inner, inner};
    const MatrixView made{made_.data(), padded, out.cols, out.cols};
    backend_.CopyMatrix(x.Rows(0, count), activated.Rows(first, count));
    backend_.MatMul(made, x, *parts.down[e], false);
    AddExpertRows(out, routed_[e], made.Rows(0, count));
    first += count;
  }
}

}  // namespace corpusd
