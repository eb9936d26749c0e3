// engine/ranks/tensor_devices.h -- several devices of one host as a Backend that has a part of
// every weight on each: tensor parallelism. The first has the text: pages, attention, logits. All
// have the rows of activations, compute some outputs of every product for all of them, and put them
// together through DeviceLink, in the order of their streams; no host waits, nothing is allocated
// once shapes have been seen. Every sum is one device's (parted_weight.h): the bits are those of
// one device with all weights. A model is loaded over it by LoadParted. An error of a device ends
// what is under way on all; Synchronize, and so Model::Forward, returns it, and the next Embed
// tries anew. One caller at a time, as of any Backend.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backend/forwarding_backend.h"
#include "engine/model/model.h"
#include "engine/ranks/call_queue.h"
#include "engine/ranks/device_source.h"
#include "engine/ranks/tensor_member.h"

namespace corpusd {

struct TensorDevicesOptions {
  std::vector<std::string> devices;  // by name, the first device first
  std::shared_ptr<DeviceSource> source = HostDevices();
  CpuBackendOptions cpu;  // repacks weights; the arithmetic of CPUs
  std::chrono::milliseconds timeout = kTransferTimeout;
  DeviceLost on_lost;  // of any but the first; may be empty
};

class TensorDevices final : public ForwardingBackend {
 public:
  // local: what the first device's attention and pages are; first: the device itself, which local
  // may be. Both must outlive this. kUnimplemented: devices that cannot; errors of the source.
  static Result<std::unique_ptr<TensorDevices>> Open(Backend& local, Backend& first,
                                                     const TensorDevicesOptions& options);
  ~TensorDevices() override;

  uint32_t count() const { return static_cast<uint32_t>(members_.size()); }
  // Of the weights on one device; what it has sent so far.
  uint64_t weight_bytes(uint32_t device) const { return weight_bytes_[device]; }
  uint64_t sent_bytes(uint32_t device) const { return members_[device]->sent_bytes(); }

  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override;
  Result<std::unique_ptr<Buffer>> AllocateShared(uint64_t bytes, std::string_view purpose) override;
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override;
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  void SwiGlu(MatrixView out, MatrixView gate_up) override { Activate(out, gate_up, false); }
  void GeGlu(MatrixView out, MatrixView gate_up) override { Activate(out, gate_up, true); }
  void ScaleRows(MatrixView x, std::span<const float> factors) override;
  void AddBias(MatrixView x, const float* bias) override;
  void Add(MatrixView x, MatrixView y) override;
  void MixExperts(MatrixView out, const ExpertInput& input) override;
  Status Synchronize() override;

 private:
  class TwinBuffer;
  struct Other {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<TensorOps> host_ops;  // of a CPU
    Status status;
    std::vector<uint32_t> ids;
    std::vector<float> factors;
    std::unique_ptr<CallQueue> queue;
  };
  struct SharedExpert {
    MatrixView out;
    const PartedWeight* weight = nullptr;  // null: none
    bool accumulate = false;
  };
  struct ExpertLists {
    std::vector<const Weight*> gate_up, down;
  };

  TensorDevices(Backend& local, const TensorDevicesOptions& options);
  Status Connect();
  Status JoinMember(uint32_t device, Transport* control, std::unique_ptr<Transport> owned);
  bool ok() const { return status_.ok(); }
  // Ends what is under way on all devices. Any thread.
  void Break(const Status& why);
  // What was prepared over the way between devices goes, on all of them.
  void ForgetSteps();
  // Memory of every device for what is exchanged.
  Status Reserve(uint64_t bytes);
  Result<std::unique_ptr<Buffer>> WithTwins(Result<std::unique_ptr<Buffer>> first);
  // Memory that is on every device; null: it is not.
  TwinBuffer* TwinsOf(const MatrixView& m) const;
  MatrixView On(uint32_t device, MatrixView m) const;
  // Whether all devices have the matrix.
  bool IsEverywhere(const MatrixView& m) const;
  // From now on the first device alone has it.
  void LeaveWithFirst(const MatrixView& m);
  // call(member, views of its memory...) on every device, or on the first alone, if a matrix is
  // only there.
  template <typename Call, typename... Views>
  void Everywhere(const Call& call, Views... views);
  template <typename Call, typename... Views>
  void OnAll(const Call& call, Views... views);
  void MatMulToFirst(MatrixView out, MatrixView x, const PartedWeight& weight);
  void Activate(MatrixView out, MatrixView gate_up, bool gelu);
  // Puts together what the last products left in parts.
  void Settle();
  // By a weight that takes the inner numbers of all devices.
  void MultiplyJoined(MatrixView out, MatrixView x, const PartedWeight& weight, bool accumulate);
  bool IsPending(const MatrixView& m) const;
  const ExpertLists* ListsOf(uint32_t device, std::span<const Expert> experts);

  const TensorDevicesOptions options_;
  std::vector<std::unique_ptr<Other>> others_;          // devices 1 ..
  std::vector<std::unique_ptr<TensorMember>> members_;  // all
  std::unique_ptr<TensorOps> host_ops_;                 // of the first
  std::vector<uint64_t> weight_bytes_;
  std::map<std::pair<uint32_t, const void*>, ExpertLists> experts_;
  mutable std::mutex mutex_;  // of twins_
  std::map<const std::byte*, TwinBuffer*> twins_;
  // Of what every device has its own columns; data null: nothing.
  MatrixView pending_;             // the outputs of the last product
  MatrixView unjoined_;            // the last inner numbers
  SharedExpert shared_;            // whose product over unjoined_ has not begun
  const float* parted_ = nullptr;  // gates and ups, of which every device has its own, compact
  bool passing_ = false;           // since Embed, nobody has waited
  std::atomic<bool> broken_{false};
  std::mutex broken_mutex_;
  Status broken_why_;
  Status status_;
};

template <typename Call, typename... Views>
void TensorDevices::OnAll(const Call& call, Views... views) {
  for (uint32_t d = 1; d < count(); ++d) {
    TensorMember* const member = members_[d].get();
    const std::array theirs = {On(d, views)...};
    others_[d - 1]->queue->Post([this, member, call, theirs] {
      std::apply([&](auto... own) { call(*member, own...); }, theirs);
      // The first device would wait in vain.
      if (const Status status = member->ops().error(); !status.ok() && !broken_) {
        member->ops().ForgetSteps();
        Break(status);
      }
    });
  }
  call(*members_[0], views...);
}

template <typename Call, typename... Views>
void TensorDevices::Everywhere(const Call& call, Views... views) {
  if (!ok()) return;
  Settle();
  if ((IsEverywhere(views) && ...)) return OnAll(call, views...);
  call(*members_[0], views...);
}

// A weight that such a backend loaded.
const PartedWeight& Parted(const Weight& weight);

// Loads the model over TensorDevices, or what passes its calls on to them: each device its part.
// Errors as LoadModel, and kInvalidArgument for what cannot be dealt.
Result<std::unique_ptr<Model>> LoadParted(const ModelSource& source, Backend& devices,
                                          const LoadProgress& on_layer = {});

}  // namespace corpusd
