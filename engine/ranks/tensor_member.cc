#include "engine/ranks/tensor_member.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {

void TensorMember::Join(std::unique_ptr<Transport> transport, std::unique_ptr<DeviceLink> link) {
  Leave();
  transport_ = std::move(transport);
  own_link_ = std::move(link);
  link_ = own_link_ == nullptr ? transport_->link() : own_link_.get();
}

void TensorMember::Leave() {
  ops_.ForgetSteps();
  link_ = nullptr;
  own_link_.reset();
  transport_.reset();
}

Status TensorMember::Reserve(uint64_t bytes) {
  if (reserved_bytes() >= bytes) return OkStatus();
  // What is under way may be in the old piece.
  RETURN_IF_ERROR(backend_.Synchronize());
  staging_.reset();
  ASSIGN_OR_RETURN(staging_, backend_.Allocate(bytes, "what devices exchange"));
  return OkStatus();
}

void TensorMember::Message(uint32_t other, bool sends, float* data, uint64_t floats) {
  if (floats == 0) return;
  CHECK(message_count_ < messages_.size()) << message_count_;
  messages_[message_count_++] = {other, sends ? 1u : 0u, reinterpret_cast<std::byte*>(data),
                                 floats * sizeof(float)};
  if (sends) sent_bytes_ += floats * sizeof(float);
}

void TensorMember::Exchange() {
  const std::span all(messages_.data(), message_count_);
  message_count_ = 0;
  if (link_ != nullptr) ops_.Exchange(*link_, all);
}

void TensorMember::JoinColumns(std::span<const MatrixView> matrices) {
  // A row alone lies as it travels; of several, each device's columns are brought together first.
  std::array<DeviceParts, kDevicePartsMax> parts;
  CHECK(matrices.size() <= parts.size()) << matrices.size();
  float* next = staging();
  const auto slice_of = [&](size_t i, uint32_t r) {
    const uint32_t rows = matrices[i].rows, own = matrices[i].cols / count_;
    auto* const data = reinterpret_cast<float*>(parts[i].data + r * parts[i].bytes);
    return MatrixView{data, rows, own, own};
  };
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MatrixView m = matrices[i];
    const uint32_t own = m.cols / count_;
    parts[i] = {reinterpret_cast<std::byte*>(m.rows == 1 ? m.data : next),
                uint64_t{m.rows} * own * sizeof(float)};
    sent_bytes_ += (count_ - 1) * parts[i].bytes;
    if (m.rows == 1) continue;
    next += uint64_t{m.rows} * m.cols;
    const ColumnPiece piece{rank_ * own, 0, own};
    ops_.CopyColumns(slice_of(i, rank_), m, {&piece, 1});
  }
  const auto staged = static_cast<uint64_t>(next - staging());
  CHECK(reserved_bytes() >= staged * sizeof(float)) << staged << " numbers";
  if (link_ != nullptr) ops_.Gather(*link_, std::span(parts).first(matrices.size()));
  for (size_t i = 0; i < matrices.size(); ++i) {
    for (uint32_t r = 0; r < count_ && matrices[i].rows > 1; ++r) {
      const uint32_t own = matrices[i].cols / count_;
      const ColumnPiece piece{0, r * own, own};
      if (r != rank_) ops_.CopyColumns(matrices[i], slice_of(i, r), {&piece, 1});
    }
  }
}

void TensorMember::FromFirst(MatrixView m) {
  CHECK(m.rows == 1 || m.row_stride == m.cols) << "rows that travel lie one after the other";
  const uint64_t floats = uint64_t{m.rows} * m.cols;
  if (rank_ > 0) Message(0, false, m.data, floats);
  for (uint32_t r = 1; rank_ == 0 && r < count_; ++r) Message(r, true, m.data, floats);
  Exchange();
}

void TensorMember::ToFirst(MatrixView out, MatrixView x, const PartedWeight& weight) {
  const Weight& part = weight.part(rank_);
  // With its row of zeros, a table's part has an output more than it has to give.
  const auto rows_of = [&](uint32_t r) { return weight.part(r).rows(); };
  CHECK(reserved_bytes() >= uint64_t{x.rows} * part.rows() * sizeof(float)) << x.rows << " rows";
  float* next = staging();
  const auto take = [&](uint32_t cols) {
    const MatrixView taken{next, x.rows, cols, cols};
    next += uint64_t{x.rows} * cols;
    return taken;
  };
  const MatrixView own = take(part.rows());
  backend_.MatMul(own, x, part, /*accumulate=*/false);
  const uint64_t floats = uint64_t{x.rows} * part.rows();
  if (rank_ > 0) {
    Message(0, true, own.data, floats);
    return Exchange();
  }
  std::array<MatrixView, kDevicesMax> made;
  made[0] = own;
  for (uint32_t r = 1; r < count_; ++r) {
    made[r] = take(rows_of(r));
    Message(r, false, made[r].data, uint64_t{x.rows} * rows_of(r));
  }
  Exchange();
  for (uint32_t r = 0; r < count_; ++r) {
    const auto pieces = weight.PiecesOf(r);
    if (weight.use() == PartedUse::kToFirst) {
      ops_.CopyColumns(out, made[r], pieces);
      continue;
    }
    for (const ColumnPiece& piece : pieces) {
      backend_.CopyMatrix(out.Cols(piece.to, piece.count), made[r].Cols(piece.from, piece.count));
    }
  }
}

// One of the devices has a token's row, the others zeros: any order of sums gives the row's bits.
void TensorMember::Embed(MatrixView out, const Weight& part, std::span<const uint32_t> ids) {
  backend_.Embed(out, part, ids);
  const uint64_t row = out.cols;
  const uint64_t together = reserved_bytes() / (row * sizeof(float) * (count_ - 1));
  CHECK(together > 0) << reserved_bytes();
  for (uint32_t first = 0; first < out.rows;) {
    const auto rows = static_cast<uint32_t>(std::min<uint64_t>(together, out.rows - first));
    const MatrixView some = out.Rows(first, rows);
    for (uint32_t step = 1; step < count_; ++step) {
      const uint32_t to = (rank_ + step) % count_, from = (rank_ + count_ - step) % count_;
      Message(to, true, some.data, rows * row);
      Message(from, false, staging() + (step - 1) * rows * row, rows * row);
    }
    Exchange();
    for (uint32_t step = 1; step < count_; ++step) {
      backend_.Add(some, {staging() + (step - 1) * rows * row, rows, some.cols, some.cols});
    }
    first += rows;
  }
}

}  // namespace corpusd
