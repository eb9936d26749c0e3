#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/backend/cuda/cuda_error.h"
#include "engine/backend/cuda/cuda_weight.h"
#include "engine/backend/device_backend.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/matmul.h"
#include "store/base/check.h"
#include "store/base/fault_point.h"

namespace corpusd {
namespace {

// Of a model of 576 numbers a row they fill the multiprocessors some twenty times over; activations
// take 30 KB a row.
constexpr uint32_t kBatchRows = 20480;

// Of a step that is launched together: more are looked through while the device works. With 16
// questions of 60 pages each, a step took 1.4 times as long together as launch by launch.
uint64_t GraphPages() {
  const char* const chosen = std::getenv("CORPUSD_CUDA_GRAPHS");
  return chosen == nullptr ? 128 : std::strtoull(chosen, nullptr, 10);
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Result<std::unique_ptr<Backend>> MakeCudaBackend(int index, unsigned threads, DeviceLost on_lost) {
  return CudaBackend::Create(index, threads, std::move(on_lost));
}

Result<std::unique_ptr<Backend>> CudaBackend::Create(int device, unsigned threads,
                                                     DeviceLost on_lost, uint32_t node_width) {
  if (device >= CudaDeviceCount()) {
    return FailedPreconditionError("cuda:" + std::to_string(device) + ": there is no such device");
  }
  cudaDeviceProp properties{};
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "read the properties"));
  if (properties.major != 9) {
    return UnimplementedError("cuda:" + std::to_string(device) + " is a " + properties.name +
                              " of compute capability " + std::to_string(properties.major) + "." +
                              std::to_string(properties.minor) +
                              "; the kernels of this build need 9.0");
  }
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "choose the device"));
  cudaStream_t stream = nullptr, beside = nullptr;
  for (cudaStream_t* one : {&stream, &beside}) {
    RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(one, cudaStreamNonBlocking), "make a stream"));
  }
  const std::string name = "cuda:" + std::to_string(device) + " (" + properties.name + ")";
  return std::unique_ptr<Backend>(std::unique_ptr<CudaBackend>(
      new CudaBackend(device, name, stream, beside, threads, std::move(on_lost), node_width)));
}

CudaBackend::CudaBackend(int device, std::string name, cudaStream_t stream, cudaStream_t beside,
                         unsigned threads, DeviceLost on_lost, uint32_t node_width)
    : device_(device),
      name_(std::move(name)),
      stream_(stream),
      beside_(beside),
      device_pool_(std::make_shared<CudaPool>(device, CudaPool::Kind::kDevice)),
      host_pool_(std::make_shared<CudaPool>(device, CudaPool::Kind::kHost)),
      threads_(threads),
      arrays_(device_pool_,
              [this](std::byte* target, const float* source, uint64_t floats) {
                return CudaStatus(cudaMemcpyAsync(target, source, floats * sizeof(float),
                                                  cudaMemcpyHostToDevice, stream_),
                                  "copy a model's arrays");
              }),
      pages_(device_pool_, host_pool_, stream),
      on_lost_(std::move(on_lost)),
      node_width_(node_width),
      graph_pages_(GraphPages()),
      launches_(stream),
      slots_(device_pool_, stream) {}

CudaBackend::~CudaBackend() {
  BeginOnDevice();
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  cudaStreamDestroy(beside_);
}

uint32_t CudaBackend::few_rows() const { return cuda::kFewMatMulRows; }
uint32_t CudaBackend::batch_rows() const { return kBatchRows; }

Status CudaBackend::Supports(const AttentionShape& shape) const {
  if (shape.head_dim == 64 || shape.head_dim == 128) return OkStatus();
  return UnimplementedError("the model's heads have " + std::to_string(shape.head_dim) +
                            " numbers; the CUDA kernels take 64 and 128: use the CPU");
}

Result<std::unique_ptr<Buffer>> CudaBackend::Allocate(uint64_t bytes, std::string_view purpose) {
  ASSIGN_OR_RETURN(auto buffer, CudaBuffer::Create(device_pool_, bytes, purpose));
  return std::unique_ptr<Buffer>(std::move(buffer));
}

Result<std::unique_ptr<Buffer>> CudaBackend::AllocateShared(uint64_t bytes,
                                                            std::string_view purpose) {
  ASSIGN_OR_RETURN(auto buffer, CudaBuffer::Create(host_pool_, bytes, purpose));
  std::memset(buffer->data(), 0, bytes);
  return std::unique_ptr<Buffer>(std::move(buffer));
}

void CudaBackend::Clear(std::byte* data, uint64_t bytes) {
  BeginOnDevice();
  Launched(cudaMemsetAsync(data, 0, bytes, stream_), "clear memory");
}

Status CudaBackend::Copy(std::byte* target, const std::byte* source, uint64_t bytes) {
  BeginOnDevice();
  RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream_), "copy"));
  return CudaStatus(cudaStreamSynchronize(stream_), "copy");
}

Status CudaBackend::CopyBeside(std::span<const CopyPiece> pieces) {
  if (pieces.empty()) return OkStatus();
  BeginOnDevice();
  const std::lock_guard lock(beside_mutex_);
  Status begun;
  for (const CopyPiece& piece : pieces) {
    begun = CopyInFrames(piece.target, piece.source, piece.bytes, beside_);
    if (!begun.ok()) break;
  }
  const Status done = CudaStatus(cudaStreamSynchronize(beside_), "copy");
  return begun.ok() ? done : begun;
}

Result<std::unique_ptr<Weight>> CudaBackend::LoadWeight(std::span<const WeightSource> sources) {
  BeginOnDevice();
  ASSIGN_OR_RETURN(auto weight, CudaWeight::Load(sources, device_pool_, threads_, stream_));
  return std::unique_ptr<Weight>(std::move(weight));
}

void CudaBackend::Begin() {
  BeginOnDevice();
  FlushWrites();
}

bool CudaBackend::Keep(Status status) {
  if (failed_.ok() && !status.ok()) failed_ = std::move(status);
  return failed_.ok();
}

bool CudaBackend::Launched(int error, std::string_view what) {
  if (!FaultPoint("device.launch").ok()) error = cudaErrorLaunchFailure;
  return Keep(CudaStatus(error, what));
}

void CudaBackend::StopRecording(bool at_end) {
  if (recording_ && on_launch_) on_launch_();
  recording_ = false;
  // NCCL's calls may not be made while a graph with some of the same job is under way.
  const bool may_be_graph = at_end || !exchanges_;
  exchanges_ = false;
  if (failed_.ok() && !launches_.empty()) {
    Keep(CudaStatus(launches_.Flush(may_be_graph), "launch a step"));
  }
}

bool CudaBackend::Recover() {
  const bool answers = FaultPoint("device.answer").ok() && cudaDeviceSynchronize() == cudaSuccess;
  (void)cudaGetLastError();
  writes_.count = 0;
  recording_ = false;
  launches_.Forget();
  slots_.Forget();
  sent_tiles_.clear();
  expert_tables_.clear();
  mix_ = {};
  pages_.Forget();
  arrays_.Forget();
  return answers;
}

std::byte* CudaBackend::Grow(std::unique_ptr<CudaBuffer>* buffer, uint64_t bytes,
                             std::string_view purpose) {
  if (*buffer == nullptr || (*buffer)->bytes() < bytes) {
    // What is under way may read the old piece, whose next owner need not wait for the stream.
    if (*buffer != nullptr) {
      StopRecording();
      Launched(cudaStreamSynchronize(stream_), "wait for the device");
    }
    buffer->reset();
    auto grown = CudaBuffer::Create(device_pool_, bytes + bytes / 4, purpose);
    if (!Keep(grown.status())) return nullptr;
    *buffer = std::move(*grown);
  }
  return (*buffer)->data();
}

const void* CudaBackend::Send(std::unique_ptr<CudaBuffer>* buffer, const void* data,
                              uint64_t bytes) {
  std::byte* const to = Grow(buffer, bytes, "arguments");
  // From pageable memory: what is copied has been read when the call returns.
  if (to == nullptr ||
      !Launched(cudaMemcpyAsync(to, data, bytes, cudaMemcpyHostToDevice, stream_), "copy")) {
    return nullptr;
  }
  return to;
}

void CudaBackend::Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) {
  Begin();
  for (const uint32_t id : ids) CHECK(id < table.rows()) << id << " of " << table.rows();
  launches_.Discard();  // of a pass that ended in an error
  recording_ = graph_pages_ > 0 && ids.size() <= few_rows();
  const auto sent = slots_.Put(ids.data(), ids.size_bytes());
  if (!Keep(sent.status())) return;
  const auto& weight = static_cast<const CudaWeight&>(table);
  Do<cuda::EmbedRows>("embed tokens", View(out.Rows(0, static_cast<uint32_t>(ids.size()))),
                      weight.kind(), weight.view(), reinterpret_cast<const uint32_t*>(*sent));
}

void CudaBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows)
      << x.cols << " inputs of " << weight.cols();
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  const auto& matrix = static_cast<const CudaWeight&>(weight);
  cuda::MatMulCall call;
  call.out = View(out);
  call.x = View(x);
  const bool few = x.rows <= few_rows();
  call.weight = few ? matrix.view() : matrix.wide_view();
  call.accumulate = accumulate ? 1 : 0;
  Do<cuda::MatMulRows>("multiply", call, few ? matrix.kind() : matrix.wide_kind());
}

void CudaBackend::WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
                          const RopeTable* rope) {
  const KvFormat& format = *target.format;
  CHECK(target.first_slot + keys.rows <= format.block_tokens) << target.first_slot;
  CHECK(format.block_tokens == kBlockTokens && keys.row_stride == values.row_stride)
      << format.Canonical();
  const bool coded = IsCoded(format);
  CHECK(!coded || (target.basis != nullptr && target.first_slot == 0)) << format.Canonical();
  BeginOnDevice();
  if (keys.rows == 0) return;
  cuda::EncodeCall call;
  call.stride = keys.row_stride;
  call.kv_heads = format.kv_heads;
  call.head_dim = format.head_dim;
  const LayerCodecs codecs = format.CodecsOf(target.layer);
  call.key_codec = CodecOf(codecs.key);
  call.value_codec = CodecOf(codecs.value);
  call.layer_offset = format.KeyTileOffset(target.layer, 0);
  call.key_tile_bytes = static_cast<uint32_t>(format.KeyTileBytes(target.layer));
  call.value_tile_bytes = static_cast<uint32_t>(format.ValueTileBytes(target.layer));
  const auto turn = arrays_.Rope(rope);
  const auto basis = arrays_.Basis(target.basis, format.kv_heads, format.head_dim);
  if (!Keep(turn.status()) || !Keep(basis.status())) return;
  call.rope = *turn;
  call.basis = *basis;
  const auto together = [&] {
    return writes_.count < cuda::kEncodeTargetsMax && writes_.stride == call.stride &&
           writes_.kv_heads == call.kv_heads && writes_.head_dim == call.head_dim &&
           writes_.key_codec == call.key_codec && writes_.value_codec == call.value_codec &&
           writes_.layer_offset == call.layer_offset && writes_.rope.cos_sin == call.rope.cos_sin &&
           writes_.basis.arrays == call.basis.arrays;
  };
  if (writes_.count > 0 && !together()) FlushWrites();
  if (writes_.count == 0) writes_ = call;
  writes_.targets[writes_.count++] = {reinterpret_cast<uint8_t*>(target.block), keys.data,
                                      values.data, keys.rows, target.first_slot};
}

// Where a step's tokens go differs from the step before: it is told by way of memory.
void CudaBackend::LaunchWrites() {
  const std::span targets(writes_.targets, static_cast<size_t>(writes_.count));
  writes_.rows_max = 0;
  for (const cuda::EncodeTarget& target : targets) {
    writes_.rows_max = std::max(writes_.rows_max, target.rows);
  }
  writes_.placed = nullptr;
  if (recording_) {
    const auto placed = slots_.Put(targets.data(), targets.size_bytes());
    if (!Keep(placed.status())) return;
    writes_.placed = reinterpret_cast<const cuda::EncodeTarget*>(*placed);
    std::ranges::fill(targets, cuda::EncodeTarget());
  }
  Do<cuda::EncodePages>("write keys and values", writes_);
}

void CudaBackend::FlushWrites() {
  if (writes_.count == 0) return;
  const bool coded =
      writes_.key_codec <= cuda::PageCodec::kCq8 || writes_.value_codec <= cuda::PageCodec::kCq8;
  if (coded) {
    const uint64_t floats =
        cuda::EncodeScratchFloats(cuda::kEncodeTargetsMax, writes_.kv_heads, writes_.head_dim);
    writes_.scratch = reinterpret_cast<float*>(
        Grow(&coordinates_, floats * sizeof(float), "coordinates of keys and values"));
  }
  if (failed_.ok()) LaunchWrites();
  writes_.count = 0;
}

void CudaBackend::CopyMatrix(MatrixView target, MatrixView source) {
  CHECK(target.rows == source.rows && target.cols == source.cols)
      << target.rows << " x " << target.cols;
  Begin();
  StopRecording();
  if (!failed_.ok() || source.rows == 0) return;
  Launched(cudaMemcpy2DAsync(target.data, target.row_stride * sizeof(float), source.data,
                             source.row_stride * sizeof(float), source.cols * sizeof(float),
                             source.rows, cudaMemcpyDefault, stream_),
           "copy rows");
}

Status CudaBackend::Synchronize() {
  Begin();
  StopRecording(/*at_end=*/true);
  Launched(cudaStreamSynchronize(stream_), "wait for the device");
  slots_.Begin();
  pages_.BeginStep();
  if (failed_.ok() || lost_) return failed_;
  Status failed = failed_;
  if (Recover()) {
    failed_ = OkStatus();
    return failed;
  }
  lost_ = true;
  if (on_lost_) on_lost_(failed);
  return failed;
}

}  // namespace corpusd
