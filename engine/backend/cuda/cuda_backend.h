// engine/backend/cuda/cuda_backend.h -- one CUDA device as a Backend: one stream, on which every
// call enqueues its kernels; weights in bfloat16 or codes of 8 and 4 bits, float32 activations;
// pages in any codec, read where they lie. The first error of a launch or a copy is kept, and the
// next Synchronize returns it: what was computed since is of no use. If the device still answers,
// what comes after begins afresh; else every Synchronize fails, and who made the backend is told
// once. One caller at a time (see backend.h).
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/cuda_pool.h"
#include "engine/backend/cuda/host_arrays.h"
#include "engine/backend/cuda/launch_list.h"
#include "engine/backend/cuda/page_table.h"
#include "engine/backend/device_backend.h"
#include "engine/backend/node_attention.h"
#include "engine/backend/tensor_ops.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/expert_routing.h"
#include "kernels/cuda/kv_encode.h"
#include "kernels/cuda/node_states.h"
#include "kernels/cuda/page_attention.h"
#include "kernels/cuda/prefill_attention.h"

namespace corpusd {

inline cuda::DeviceMatrix View(MatrixView m) { return {m.data, m.rows, m.cols, m.row_stride}; }

class CudaBackend final : public Backend, public NodeAttention, public TensorOps {
 public:
  static Result<std::unique_ptr<Backend>> Create(int device, unsigned threads, DeviceLost on_lost,
                                                 uint32_t node_width = kNodeWidth);
  ~CudaBackend() override;

  std::string_view name() const override { return name_; }
  uint32_t few_rows() const override;
  uint32_t batch_rows() const override;
  Status Supports(const AttentionShape& shape) const override;
  bool host_addressable() const override { return false; }

  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override;
  Result<std::unique_ptr<Buffer>> AllocateShared(uint64_t bytes, std::string_view purpose) override;
  void Clear(std::byte* data, uint64_t bytes) override;
  Status Copy(std::byte* target, const std::byte* source, uint64_t bytes) override;
  Status CopyBeside(std::span<const CopyPiece> pieces) override;
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override;

  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  void SwiGlu(MatrixView out, MatrixView gate_up) override;
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override;
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override;
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override;
  void AttentionOfParts(MatrixView out, MatrixView q,
                        std::span<const AttentionPart> parts) override;
  Status Synchronize() override;
  void HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) override;
  void ScaleRows(MatrixView x, std::span<const float> factors) override;
  void AddBias(MatrixView x, const float* bias) override;
  void Add(MatrixView x, MatrixView y) override;
  void GeGlu(MatrixView out, MatrixView gate_up) override;
  void MixExperts(MatrixView out, const ExpertInput& input) override;
  void CopyMatrix(MatrixView target, MatrixView source) override;

  // Nodes narrower than this are put together from those of this width below them: so numbers of
  // ranks that are powers of two up to it give the same bits, one rank that computes the root
  // included. Attention, which takes all pages in one go, gives others.
  static constexpr uint32_t kNodeWidth = 4;
  Status AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                     std::span<const MergeNode> nodes) override;
  Status AttendNodesOfParts(std::span<const std::span<float>> states, MatrixView q,
                            std::span<const AttentionPart> parts,
                            std::span<const MergeNode> nodes) override;
  Status MergeNodes(MatrixView out, std::span<const float> states, const AttentionInput& input,
                    std::span<const MergeNode> nodes) override;
  uint32_t span_pages() const override { return kSpanPages; }
  uint32_t leaf_width() const override { return node_width_; }
  void* stream() const override { return stream_; }

  void Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) override;
  void Gather(DeviceLink& link, std::span<const DeviceParts> parts) override;
  void CopyColumns(MatrixView out, MatrixView in, std::span<const ColumnPiece> pieces) override;
  MatrixView RaiseExperts(const ExpertParts& parts) override;
  void LowerExperts(MatrixView out, const ExpertParts& parts) override;
  bool gathers() const override { return recording_; }
  void Launch() override;
  void OnLaunch(std::function<void()> told) override { on_launch_ = std::move(told); }
  Status error() const override { return failed_; }
  void ForgetSteps() override;

 private:
  // Of one layer: the weights of all experts, [gate_up][down] on the device.
  struct ExpertTable {
    std::vector<cuda::DeviceWeight> views;  // what weights holds
    std::unique_ptr<CudaBuffer> weights;
    cuda::WeightKind gate_up_kind = cuda::WeightKind::kBf16;
    cuda::WeightKind down_kind = cuda::WeightKind::kBf16;
  };
  // A mixture between its two halves.
  struct Mixture {
    const ExpertTable* table = nullptr;  // null: none is under way
    cuda::RoutedSlots routed;
    MatrixView activated, results;
    cuda::MatMulCall call;
  };

  CudaBackend(int device, std::string name, cudaStream_t stream, cudaStream_t beside,
              unsigned threads, DeviceLost on_lost, uint32_t node_width);

  // Before the work of a call: its thread's device, and the writes that wait for company.
  void Begin();
  void BeginOnDevice() const { cudaSetDevice(device_); }
  // Launches Function(arguments..., stream), or adds it to the step that is under way. RETURNS
  // whether there was no error.
  template <auto Function, typename... Arguments>
  bool Do(std::string_view what, const Arguments&... arguments) {
    if (!recording_) return Launched(Function(arguments..., stream_), what);
    if (!Launched(cudaSuccess, what)) return false;
    launches_.Add<Function>(arguments...);
    return true;
  }
  // Launches what was added; what follows is launched at once, until the next pass. The end of one,
  // for which the caller waits, may be a graph whatever it has in it.
  void StopRecording(bool at_end = false);
  // Keeps the first error. RETURNS whether there is none.
  bool Keep(Status status);
  bool Launched(int error, std::string_view what);
  // After an error: whether the device answers; then nothing is left of what failed.
  bool Recover();
  void FlushWrites();
  void LaunchWrites();
  // Memory that grows to the largest call and stays.
  std::byte* Grow(std::unique_ptr<CudaBuffer>* buffer, uint64_t bytes, std::string_view purpose);
  // Copies small host data to the device, where it stays until the stream has passed the call.
  const void* Send(std::unique_ptr<CudaBuffer>* buffer, const void* data, uint64_t bytes);
  // log_sums: as in PageAttention.
  void AttendFew(MatrixView out, MatrixView q, const AttentionInput& input,
                 std::span<const cuda::AttentionRow> rows, cuda::DeviceMatrix log_sums = {});
  // The pages of part i are the next part_pages[i] of pages_.
  void AttendMany(MatrixView out, MatrixView q, std::span<const AttentionPart> parts,
                  std::span<const uint32_t> part_pages);
  void AttendWindow(MatrixView out, MatrixView q, const AttentionInput& input);
  const ExpertTable* TableOf(const ExpertParts& parts);
  cuda::RoutedSlots SlotsFor(uint32_t slots, uint32_t experts, uint32_t used, bool few);
  // first_page: of pages_, the one that tiles count from.
  const cuda::PrefillTile* SendTiles(std::span<const AttentionPart> parts,
                                     std::span<const uint32_t> part_pages, uint32_t first_page);
  // cuda_nodes.cc. The nodes that are computed in one go, and how many pages each has: they follow
  // one another in pages_.
  struct Leaves {
    std::vector<MergeNode> nodes;
    std::vector<uint32_t> pages;
  };
  Status AddLeaves(const AttentionInput& input, uint64_t last_position,
                   std::span<const MergeNode> nodes, bool steady, Leaves* leaves);
  cuda::NodeLayout LayoutOf(const AttentionShape& shape, uint32_t rows) const;
  // The states of all leaves, for rows of one call.
  void AttendFewLeaves(float* states, MatrixView q, const AttentionInput& input,
                       const Leaves& leaves);
  bool ExpandLeaves(const AttentionInput& input, cuda::PrefillAttention* call);
  // Rows of q whose states lie together.
  struct LeafRows {
    float* states = nullptr;
    cuda::NodeLayout layout;
    uint32_t first_row = 0, rows = 0;
    int64_t first_position = 0;
  };
  // The states of all leaves, or, folded, the one state of the node that two are below.
  void AttendManyLeaves(std::span<const LeafRows> parts, MatrixView q, const Leaves& leaves,
                        bool folded, cuda::PrefillAttention call);
  // AttendNodesOfParts by one launch; nothing: that cannot be.
  std::optional<Status> AttendInOne(std::span<const std::span<float>> states, MatrixView q,
                                    std::span<const AttentionPart> parts,
                                    std::span<const MergeNode> nodes);
  // Puts a node together from the states of `parts`.
  void FoldNode(cuda::NodeMerge call, const AttentionShape& shape, MergeNode node, uint32_t spans,
                std::span<const MergeNode> parts);

  const int device_;
  const std::string name_;
  const cudaStream_t stream_;
  std::mutex beside_mutex_;
  const cudaStream_t beside_;  // of CopyBeside
  const std::shared_ptr<CudaPool> device_pool_, host_pool_;
  ThreadPool threads_;
  HostArrays arrays_;
  PageTable pages_;
  const DeviceLost on_lost_;
  const uint32_t node_width_;
  bool lost_ = false;
  Status failed_;
  // Neighbouring writes into pages of one layer are one launch.
  cuda::EncodeCall writes_;
  // Passes of few rows are steps of a decode: their kernels are launched together.
  const uint64_t graph_pages_;  // steps over so many pages are launched together
  bool recording_ = false;
  bool exchanges_ = false;  // with other devices, among what was added
  LaunchList launches_;
  ParameterSlots slots_;  // of one pass
  std::unique_ptr<CudaBuffer> tiles_, workspace_, coordinates_, expanded_, pieces_;
  std::unique_ptr<CudaBuffer> leaf_states_, leaf_queries_;
  std::unique_ptr<CudaBuffer> routed_, slot_rows_;
  std::map<const void*, ExpertTable> expert_tables_;
  Mixture mix_;
  std::function<void()> on_launch_;
  std::vector<cuda::PrefillTile> sent_tiles_;  // what tiles_ holds
};

}  // namespace corpusd
