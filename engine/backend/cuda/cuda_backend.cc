#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "engine/backend/cuda/cuda_error.h"
#include "engine/backend/cuda/cuda_weight.h"
#include "engine/backend/device_backend.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/prefill_attention.h"
#include "store/base/check.h"
#include "store/base/fault_point.h"

namespace corpusd {
namespace {

// Of a model of 576 numbers a row they fill the multiprocessors some twenty times over; activations
// take 30 KB a row.
constexpr uint32_t kBatchRows = 20480;

cuda::DeviceMatrix View(MatrixView m) { return {m.data, m.rows, m.cols, m.row_stride}; }

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
      node_width_(node_width) {}

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
  ASSIGN_OR_RETURN(auto weight, CudaWeight::Load(sources, device_pool_, threads_));
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

bool CudaBackend::Recover() {
  const bool answers = FaultPoint("device.answer").ok() && cudaDeviceSynchronize() == cudaSuccess;
  (void)cudaGetLastError();
  writes_.count = 0;
  sent_rows_.clear();
  sent_tiles_.clear();
  pages_.Forget();
  arrays_.Forget();
  return answers;
}

std::byte* CudaBackend::Grow(std::unique_ptr<CudaBuffer>* buffer, uint64_t bytes,
                             std::string_view purpose) {
  if (*buffer == nullptr || (*buffer)->bytes() < bytes) {
    // What is under way may read the old piece, whose next owner need not wait for the stream.
    if (*buffer != nullptr) Launched(cudaStreamSynchronize(stream_), "wait for the device");
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
  const void* const sent = Send(&ids_, ids.data(), ids.size_bytes());
  if (sent == nullptr) return;
  Launched(cuda::EmbedRows(View(out.Rows(0, static_cast<uint32_t>(ids.size()))),
                           static_cast<const CudaWeight&>(table).data(), table.cols(),
                           static_cast<const uint32_t*>(sent), stream_),
           "embed tokens");
}

void CudaBackend::RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) {
  Begin();
  const auto copy = arrays_.Gain(gain, x.cols);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Launched(cuda::RmsNormRows(View(out), View(x), *copy, epsilon, stream_), "normalize");
}

void CudaBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows)
      << x.cols << " inputs of " << weight.cols();
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  Launched(cuda::MatMulRows(View(out), View(x), static_cast<const CudaWeight&>(weight).data(),
                            accumulate, stream_),
           "multiply");
}

void CudaBackend::SwiGlu(MatrixView out, MatrixView gate_up) {
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  Launched(cuda::SwiGluRows(View(out), View(gate_up), stream_), "activate");
}

void CudaBackend::WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
                          const RopeTable* rope) {
  const KvFormat& format = *target.format;
  CHECK(target.first_slot + keys.rows <= format.block_tokens) << target.first_slot;
  CHECK(format.block_tokens == kBlockTokens && keys.row_stride == values.row_stride)
      << format.Canonical();
  const bool coded = IsCoded(format.key_codec) || IsCoded(format.value_codec);
  CHECK(!coded || (target.basis != nullptr && target.first_slot == 0)) << format.Canonical();
  BeginOnDevice();
  if (keys.rows == 0) return;
  cuda::EncodeCall call;
  call.stride = keys.row_stride;
  call.kv_heads = format.kv_heads;
  call.head_dim = format.head_dim;
  call.key_codec = CodecOf(format.key_codec);
  call.value_codec = CodecOf(format.value_codec);
  call.layer_offset = format.KeyTileOffset(target.layer, 0);
  call.key_tile_bytes = static_cast<uint32_t>(format.KeyTileBytes());
  call.value_tile_bytes = static_cast<uint32_t>(format.ValueTileBytes());
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
  if (failed_.ok()) Launched(cuda::EncodePages(writes_, stream_), "write keys and values");
  writes_.count = 0;
}

void CudaBackend::AttendFew(MatrixView out, MatrixView q, const AttentionInput& input,
                            std::span<const cuda::AttentionRow> rows, cuda::DeviceMatrix log_sums) {
  cuda::PageAttention call;
  const auto pages = pages_.Upload();
  const auto rope = arrays_.Rope(input.rope);
  const auto basis = arrays_.Basis(input.basis, input.shape.kv_heads, input.shape.head_dim);
  if (!Keep(pages.status()) || !Keep(rope.status()) || !Keep(basis.status())) return;
  call.pages_min = rows.front().pages;
  for (const cuda::AttentionRow& row : rows) {
    call.pages_min = std::min(call.pages_min, row.pages);
    call.pages_max = std::max(call.pages_max, row.pages);
  }
  const bool sent = rows_ != nullptr && sent_rows_.size() == rows.size() &&
                    std::memcmp(sent_rows_.data(), rows.data(), rows.size_bytes()) == 0;
  if (!sent) {
    sent_rows_.assign(rows.begin(), rows.end());
    if (Send(&rows_, rows.data(), rows.size_bytes()) == nullptr) return;
  }
  const uint64_t floats = cuda::PageAttentionFloats(q.rows, call.pages_max, input.shape.q_heads,
                                                    input.shape.kv_heads, input.shape.head_dim);
  call.workspace = reinterpret_cast<float*>(Grow(&workspace_, floats * sizeof(float), "attention"));
  if (call.workspace == nullptr) return;
  call.out = View(out);
  call.log_sums = log_sums;
  call.q = View(q);
  call.q_heads = input.shape.q_heads;
  call.kv_heads = input.shape.kv_heads;
  call.head_dim = input.shape.head_dim;
  call.scale = input.shape.scale;
  call.layer = input.layer;
  call.pages = *pages;
  call.kinds = pages_.kinds();
  call.rows = reinterpret_cast<const cuda::AttentionRow*>(rows_->data());
  call.rope = *rope;
  call.basis = *basis;
  Launched(cuda::AttendPages(call, stream_), "attend");
}

const cuda::PrefillTile* CudaBackend::SendTiles(std::span<const AttentionPart> parts,
                                                std::span<const uint32_t> part_pages) {
  std::vector<cuda::PrefillTile> tiles;
  uint32_t row = 0, page = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    uint32_t visible = 0;  // pages that begin before the tile's end
    for (uint32_t done = 0; done < parts[i].rows; done += cuda::kPrefillTileRows) {
      const uint32_t rows = std::min(cuda::kPrefillTileRows, parts[i].rows - done);
      const int64_t position = static_cast<int64_t>(parts[i].input.first_position) + done;
      while (visible < part_pages[i] &&
             pages_.page(page + visible).first_position < position + rows) {
        ++visible;
      }
      tiles.push_back({row + done, rows, page, visible, position});
    }
    row += parts[i].rows;
    page += part_pages[i];
  }
  std::ranges::reverse(tiles);
  const bool sent =
      tiles_ != nullptr && sent_tiles_.size() == tiles.size() &&
      std::memcmp(sent_tiles_.data(), tiles.data(), tiles.size() * sizeof(cuda::PrefillTile)) == 0;
  if (!sent) {
    sent_tiles_ = std::move(tiles);
    if (Send(&tiles_, sent_tiles_.data(), sent_tiles_.size() * sizeof(cuda::PrefillTile)) ==
        nullptr) {
      return nullptr;
    }
  }
  return reinterpret_cast<const cuda::PrefillTile*>(tiles_->data());
}

void CudaBackend::AttendMany(MatrixView out, MatrixView q, std::span<const AttentionPart> parts,
                             std::span<const uint32_t> part_pages) {
  const AttentionInput& input = parts.front().input;
  const AttentionShape& shape = input.shape;
  const auto pages = pages_.Upload();
  const auto rope = arrays_.Rope(input.rope);
  const auto basis = arrays_.Basis(input.basis, shape.kv_heads, shape.head_dim);
  if (!Keep(pages.status()) || !Keep(rope.status()) || !Keep(basis.status())) return;
  const auto count = static_cast<uint32_t>(pages_.size());
  const uint64_t side = uint64_t{shape.kv_heads} * count * kBlockTokens * shape.head_dim;
  auto* const expanded = reinterpret_cast<uint16_t*>(
      Grow(&expanded_, std::max<uint64_t>(1, 2 * side) * sizeof(uint16_t), "pages as bfloat16"));
  const cuda::PrefillTile* const tiles = SendTiles(parts, part_pages);
  if (expanded == nullptr || tiles == nullptr) return;
  cuda::ExpandCall expand;
  expand.pages = *pages;
  expand.count = count;
  expand.layer = input.layer;
  expand.kv_heads = shape.kv_heads;
  expand.head_dim = shape.head_dim;
  expand.rope = *rope;
  expand.basis = *basis;
  expand.frame = count == 0 ? 0 : pages_.page(0).first_position;
  for (uint32_t i = 0; i < count; ++i) {
    expand.frame = std::min(expand.frame, pages_.page(i).first_position);
  }
  expand.keys = expanded;
  expand.values = expanded + side;
  if (count > 0 && !Launched(cuda::ExpandPages(expand, stream_), "expand pages")) return;
  cuda::PrefillAttention call;
  call.out = View(out);
  call.q = View(q);
  call.q_heads = shape.q_heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.scale = shape.scale;
  call.tiles = tiles;
  call.tile_count = static_cast<uint32_t>(sent_tiles_.size());
  for (const cuda::PrefillTile& tile : sent_tiles_) {
    call.pages_max = std::max(call.pages_max, tile.pages);
  }
  const uint64_t floats =
      cuda::PrefillWorkspaceFloats(call.tile_count, call.pages_max, shape.q_heads, shape.head_dim);
  call.workspace = reinterpret_cast<float*>(
      Grow(&workspace_, std::max<uint64_t>(1, floats) * sizeof(float), "attention"));
  if (call.workspace == nullptr) return;
  call.pages = *pages;
  call.page_count = count;
  call.rope = *rope;
  call.frame = expand.frame;
  call.keys = expand.keys;
  call.values = expand.values;
  Launched(cuda::AttendExpanded(call, stream_), "attend");
}

void CudaBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
  const AttentionShape& shape = input.shape;
  CHECK(q.cols == shape.q_heads * shape.head_dim && out.cols == q.cols && out.rows == q.rows);
  Begin();
  if (q.rows == 0 || !failed_.ok()) return;
  pages_.Begin(input.layer);
  const auto count = pages_.Add(input.lists);
  if (!Keep(count.status())) return;
  if (q.rows > few_rows()) {
    const AttentionPart part{input, q.rows};
    return AttendMany(out, q, {&part, 1}, {&*count, 1});
  }
  std::vector<cuda::AttentionRow> rows(q.rows);
  uint32_t visible = 0;
  for (uint32_t r = 0; r < q.rows; ++r) {
    const auto position = static_cast<int64_t>(input.first_position) + r;
    while (visible < *count && pages_.page(visible).first_position <= position) ++visible;
    rows[r] = {0, visible, position};
  }
  AttendFew(out, q, input, rows);
}

void CudaBackend::AttentionEach(MatrixView out, MatrixView q,
                                std::span<const AttentionInput> inputs) {
  CHECK(q.rows == inputs.size() && out.rows == q.rows && q.rows <= few_rows()) << q.rows;
  Begin();
  if (q.rows == 0 || !failed_.ok()) return;
  pages_.Begin(inputs[0].layer);
  std::vector<cuda::AttentionRow> rows;
  for (const AttentionInput& input : inputs) {
    const auto first = static_cast<uint32_t>(pages_.size());
    const auto count = pages_.Add(input.lists);
    if (!Keep(count.status())) return;
    rows.push_back({first, *count, static_cast<int64_t>(input.first_position)});
  }
  const auto same_basis = [&](const AttentionInput& input) {
    return input.basis == inputs[0].basis;
  };
  if (std::ranges::all_of(inputs, same_basis)) return AttendFew(out, q, inputs[0], rows);
  for (uint32_t r = 0; r < q.rows; ++r) {
    AttendFew(out.Rows(r, 1), q.Rows(r, 1), inputs[r], std::span(rows).subspan(r, 1));
  }
}

void CudaBackend::CopyMatrix(MatrixView target, MatrixView source) {
  CHECK(target.rows == source.rows && target.cols == source.cols)
      << target.rows << " x " << target.cols;
  Begin();
  if (!failed_.ok() || source.rows == 0) return;
  Launched(cudaMemcpy2DAsync(target.data, target.row_stride * sizeof(float), source.data,
                             source.row_stride * sizeof(float), source.cols * sizeof(float),
                             source.rows, cudaMemcpyDefault, stream_),
           "copy rows");
}

// Parts of many rows are one pass: their bits are those of each alone if all begin at one position,
// as sequences do.
void CudaBackend::AttentionOfParts(MatrixView out, MatrixView q,
                                   std::span<const AttentionPart> parts) {
  const auto few = [&](const AttentionPart& part) { return part.rows <= few_rows(); };
  if (std::ranges::any_of(parts, few)) return Backend::AttentionOfParts(out, q, parts);
  Begin();
  if (parts.empty() || !failed_.ok()) return;
  pages_.Begin(parts.front().input.layer);
  std::vector<uint32_t> part_pages;
  for (const AttentionPart& part : parts) {
    const auto count = pages_.Add(part.input.lists);
    if (!Keep(count.status())) return;
    part_pages.push_back(*count);
  }
  AttendMany(out, q, parts, part_pages);
}

Status CudaBackend::Synchronize() {
  Begin();
  Launched(cudaStreamSynchronize(stream_), "wait for the device");
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
