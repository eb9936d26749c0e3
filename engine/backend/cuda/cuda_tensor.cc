// What the CUDA backend does with other devices that have parts of the same weights: exchanges on
// its stream, as part of a step's graph where there is one.
#include <algorithm>

#include "engine/backend/cuda/cuda_backend.h"
#include "kernels/cuda/column_copy.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

struct ExchangeCall {
  DeviceLink* link = nullptr;
  uint64_t count = 0;
  DeviceMessage messages[kDeviceMessagesMax];
};

int RunExchange(const ExchangeCall& call, CUstream_st* stream) {
  return call.link->Enqueue(std::span(call.messages, call.count), stream);
}

struct GatherCall {
  DeviceLink* link = nullptr;
  uint64_t count = 0;
  DeviceParts parts[kDevicePartsMax];
};

int RunGather(const GatherCall& call, CUstream_st* stream) {
  return call.link->Gather(std::span(call.parts, call.count), stream);
}

}  // namespace

void CudaBackend::Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) {
  CHECK(messages.size() <= kDeviceMessagesMax) << messages.size();
  Begin();
  if (!failed_.ok() || messages.empty()) return;
  exchanges_ = true;
  ExchangeCall call;
  call.link = &link;
  call.count = messages.size();
  std::ranges::copy(messages, call.messages);
  Do<RunExchange>("exchange with other devices", call);
}

void CudaBackend::Gather(DeviceLink& link, std::span<const DeviceParts> parts) {
  CHECK(parts.size() <= kDevicePartsMax) << parts.size();
  Begin();
  if (!failed_.ok() || parts.empty()) return;
  exchanges_ = true;
  GatherCall call;
  call.link = &link;
  call.count = parts.size();
  std::ranges::copy(parts, call.parts);
  Do<RunGather>("gather from other devices", call);
}

void CudaBackend::CopyColumns(MatrixView out, MatrixView in, std::span<const ColumnPiece> pieces) {
  CHECK(pieces.size() <= cuda::kColumnPiecesMax && out.rows == in.rows)
      << pieces.size() << " pieces, " << out.rows << " rows";
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  cuda::ColumnCopy call;
  call.out = View(out);
  call.in = View(in);
  for (const ColumnPiece& piece : pieces) {
    call.pieces[call.count++] = {piece.from, piece.to, piece.count};
  }
  Do<cuda::CopyColumns>("copy columns", call);
}

void CudaBackend::Launch() {
  BeginOnDevice();
  StopRecording();
}

void CudaBackend::ForgetSteps() {
  BeginOnDevice();
  launches_.Forget();
}

}  // namespace corpusd
