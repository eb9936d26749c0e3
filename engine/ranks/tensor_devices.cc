#include "engine/ranks/tensor_devices.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "engine/model/named_source.h"
#include "engine/ranks/host_tensor_ops.h"
#include "engine/ranks/in_process_transport.h"
#include "store/base/check.h"

namespace corpusd {

const PartedWeight& Parted(const Weight& weight) {
  const auto* const parted = dynamic_cast<const PartedWeight*>(&weight);
  CHECK(parted != nullptr) << "a weight that this backend did not load";
  return *parted;
}

// The first device's memory, and as much of every other's.
class TensorDevices::TwinBuffer final : public Buffer {
 public:
  TwinBuffer(TensorDevices& owner, std::unique_ptr<Buffer> first,
             std::vector<std::unique_ptr<Buffer>> others)
      : owner_(owner), first_(std::move(first)), others_(std::move(others)) {
    const std::lock_guard lock(owner_.mutex_);
    owner_.twins_[first_->data()] = this;
  }
  ~TwinBuffer() override {
    const std::lock_guard lock(owner_.mutex_);
    owner_.twins_.erase(first_->data());
  }
  std::byte* data() override { return first_->data(); }
  uint64_t bytes() const override { return first_->bytes(); }
  Buffer& other(uint32_t device) const { return *others_[device - 1]; }

  bool first_only = false;  // what is in it now, the first device alone has

 private:
  TensorDevices& owner_;
  const std::unique_ptr<Buffer> first_;
  const std::vector<std::unique_ptr<Buffer>> others_;
};

TensorDevices::TensorDevices(Backend& local, const TensorDevicesOptions& options)
    : ForwardingBackend(local), options_(options), weight_bytes_(options.devices.size()) {}

Result<std::unique_ptr<TensorDevices>> TensorDevices::Open(Backend& local, Backend& first,
                                                           const TensorDevicesOptions& options) {
  const auto count = static_cast<uint32_t>(options.devices.size());
  if (count < 2 || count > kDevicesMax) {
    return InvalidArgumentError(std::to_string(count) + " devices cannot share weights: 2 to " +
                                std::to_string(kDevicesMax) + " can");
  }
  std::unique_ptr<TensorDevices> all(new TensorDevices(local, options));
  const auto ops_of = [](Backend& backend, std::unique_ptr<TensorOps>* host) -> TensorOps* {
    if (backend.host_addressable()) *host = std::make_unique<HostTensorOps>(backend);
    return *host == nullptr ? TensorOpsOf(backend) : host->get();
  };
  const auto none = [](const Backend& backend) {
    return UnimplementedError("'" + std::string(backend.name()) +
                              "' cannot share a model's weights with other devices");
  };
  TensorOps* const ops = ops_of(first, &all->host_ops_);
  if (ops == nullptr) return none(first);
  all->members_.push_back(std::make_unique<TensorMember>(0, count, local, *ops));
  for (uint32_t d = 1; d < count; ++d) {
    all->others_.push_back(std::make_unique<Other>());
    Other& other = *all->others_.back();
    ASSIGN_OR_RETURN(other.backend,
                     options.source->MakeBackend(options.devices[d], options.cpu, options.on_lost));
    TensorOps* const theirs = ops_of(*other.backend, &other.host_ops);
    if (theirs == nullptr) return none(*other.backend);
    all->members_.push_back(std::make_unique<TensorMember>(d, count, *other.backend, *theirs));
    other.queue = std::make_unique<CallQueue>();
  }
  RETURN_IF_ERROR(all->Connect());
  ops->OnLaunch([devices = all.get()] {
    for (uint32_t d = 1; d < devices->count(); ++d) {
      devices->others_[d - 1]->queue->Post(
          [member = devices->members_[d].get()] { member->ops().Launch(); });
    }
  });
  return all;
}

TensorDevices::~TensorDevices() {
  if (!members_.empty()) members_[0]->ops().OnLaunch({});
  for (uint32_t d = 1; d < members_.size(); ++d) {
    others_[d - 1]->queue->Post([member = members_[d].get()] {
      (void)member->backend().Synchronize();
      member->Leave();
    });
  }
  if (!members_.empty()) {
    (void)local_.Synchronize();
    members_[0]->Leave();
  }
  for (const auto& other : others_) other->queue.reset();
}

Status TensorDevices::JoinMember(uint32_t device, Transport* control,
                                 std::unique_ptr<Transport> owned) {
  ASSIGN_OR_RETURN(auto data,
                   options_.source->Connect(*control, options_.devices[device], options_.timeout));
  TensorMember& member = *members_[device];
  if (data == nullptr) {  // CPUs
    auto link = LinkOver(*control);
    member.Join(std::move(owned), std::move(link));
    return OkStatus();
  }
  if (data->link() == nullptr) {
    return UnimplementedError(options_.devices[device] + " has no exchange in a device's order");
  }
  member.Join(std::move(data), nullptr);
  return OkStatus();
}

Status TensorDevices::Connect() {
  broken_ = false;
  auto controls = MakeInProcessTransports(count(), options_.timeout);
  for (uint32_t d = 1; d < count(); ++d) {
    others_[d - 1]->queue->Post([this, d, control = controls[d].get(), owned = &controls[d]] {
      others_[d - 1]->status = JoinMember(d, control, std::move(*owned));
    });
  }
  Transport* const own = controls[0].get();
  Status status = JoinMember(0, own, std::move(controls[0]));
  for (const auto& other : others_) {
    other->queue->Await();
    if (status.ok()) status = other->status;
  }
  return status;
}

void TensorDevices::Break(const Status& why) {
  {
    const std::lock_guard lock(broken_mutex_);
    if (broken_) return;
    broken_why_ = why;
    broken_ = true;
  }
  for (const auto& member : members_) member->Abort(why);
}

void TensorDevices::ForgetSteps() {
  for (uint32_t d = 1; d < count(); ++d) {
    others_[d - 1]->queue->Post([member = members_[d].get()] { member->ops().ForgetSteps(); });
  }
  members_[0]->ops().ForgetSteps();
}

Result<std::unique_ptr<Buffer>> TensorDevices::WithTwins(Result<std::unique_ptr<Buffer>> first) {
  if (!first.ok()) return first;
  const uint64_t bytes = (*first)->bytes();
  std::vector<std::unique_ptr<Buffer>> twins;
  for (const auto& other : others_) {
    ASSIGN_OR_RETURN(auto twin, other->backend->Allocate(bytes, "activations"));
    twins.push_back(std::move(twin));
  }
  RETURN_IF_ERROR(Reserve(bytes));
  return std::unique_ptr<Buffer>(
      std::make_unique<TwinBuffer>(*this, *std::move(first), std::move(twins)));
}

Status TensorDevices::Reserve(uint64_t bytes) {
  if (members_[0]->reserved_bytes() >= bytes) return OkStatus();
  const bool passing = passing_;
  RETURN_IF_ERROR(Synchronize());
  passing_ = passing;
  Status status = members_[0]->Reserve(bytes);
  for (uint32_t d = 1; d < count(); ++d) {
    Other& other = *others_[d - 1];
    other.queue->Post(
        [&other, bytes, member = members_[d].get()] { other.status = member->Reserve(bytes); });
    other.queue->Await();
    if (status.ok()) status = other.status;
  }
  return status;
}

Result<std::unique_ptr<Buffer>> TensorDevices::Allocate(uint64_t bytes, std::string_view purpose) {
  auto first = local_.Allocate(bytes, purpose);
  return purpose == kActivations ? WithTwins(std::move(first)) : std::move(first);
}

Result<std::unique_ptr<Buffer>> TensorDevices::AllocateShared(uint64_t bytes,
                                                              std::string_view purpose) {
  auto first = local_.AllocateShared(bytes, purpose);
  return purpose == kActivations ? WithTwins(std::move(first)) : std::move(first);
}

Result<std::unique_ptr<Weight>> TensorDevices::LoadWeight(std::span<const WeightSource> sources) {
  ASSIGN_OR_RETURN(auto weight, PartedWeight::Plan(sources, count()));
  const auto load = [&](uint32_t d, Backend& backend) -> Status {
    ASSIGN_OR_RETURN(auto part, backend.LoadWeight(weight->SourcesOf(d, sources)));
    weight_bytes_[d] += part->bytes();
    weight->Keep(d, std::move(part));
    return OkStatus();
  };
  for (uint32_t d = 1; d < count(); ++d) {
    Other& other = *others_[d - 1];
    other.queue->Post([&other, &load, d] { other.status = load(d, *other.backend); });
  }
  Status status = load(0, local_);
  for (const auto& other : others_) {
    other->queue->Await();
    if (status.ok()) status = other->status;
  }
  RETURN_IF_ERROR(status);
  return std::unique_ptr<Weight>(std::move(weight));
}

TensorDevices::TwinBuffer* TensorDevices::TwinsOf(const MatrixView& m) const {
  const auto* const at = reinterpret_cast<const std::byte*>(m.data);
  const std::lock_guard lock(mutex_);
  auto found = twins_.upper_bound(at);
  if (found == twins_.begin()) return nullptr;
  --found;
  return at < found->first + found->second->bytes() ? found->second : nullptr;
}

MatrixView TensorDevices::On(uint32_t device, MatrixView m) const {
  TwinBuffer* const twins = TwinsOf(m);
  CHECK(twins != nullptr) << "a matrix that only the first device has";
  const auto* const at = reinterpret_cast<const std::byte*>(m.data);
  m.data = reinterpret_cast<float*>(twins->other(device).data() + (at - twins->data()));
  return m;
}

bool TensorDevices::IsEverywhere(const MatrixView& m) const {
  const TwinBuffer* const twins = TwinsOf(m);
  return twins != nullptr && !twins->first_only;
}

void TensorDevices::LeaveWithFirst(const MatrixView& m) {
  if (TwinBuffer* const twins = TwinsOf(m)) twins->first_only = true;
}

bool TensorDevices::IsPending(const MatrixView& m) const {
  const auto within = [&](const MatrixView& all) {
    return all.data != nullptr && m.data >= all.data && m.data < all.row(all.rows);
  };
  return within(pending_) || within(unjoined_) || within(shared_.out);
}

void TensorDevices::Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) {
  if (passing_) (void)Synchronize();  // a pass ended by an error, and what it began is under way
  if (!ok()) status_ = Connect();
  if (!ok() || ids.empty()) return;
  passing_ = true;
  const PartedWeight& weight = Parted(table);
  for (const uint32_t id : ids) CHECK(id < weight.rows()) << id << " of " << weight.rows();
  std::vector<uint32_t> own;
  for (uint32_t d = 0; d < count(); ++d) {
    const ColumnPiece& piece = weight.PiecesOf(d).front();
    std::vector<uint32_t>& rows = d == 0 ? own : others_[d - 1]->ids;
    rows.assign(ids.size(), piece.count);  // zeros
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= piece.to && ids[i] - piece.to < piece.count) rows[i] = ids[i] - piece.to;
    }
  }
  const std::vector<uint32_t>* const mine = &own;
  OnAll(
      [this, &weight, mine](TensorMember& member, MatrixView m) {
        const uint32_t d = member.rank();
        member.Embed(m, weight.part(d), d == 0 ? *mine : others_[d - 1]->ids);
      },
      out.Rows(0, static_cast<uint32_t>(ids.size())));
}

void TensorDevices::RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) {
  Everywhere([=](TensorMember& member, MatrixView to,
                 MatrixView from) { member.backend().RmsNorm(to, from, gain, epsilon); },
             out, x);
}

void TensorDevices::AddBias(MatrixView x, const float* bias) {
  Everywhere([=](TensorMember& member, MatrixView m) { member.backend().AddBias(m, bias); }, x);
}

void TensorDevices::Add(MatrixView x, MatrixView y) {
  Everywhere(
      [](TensorMember& member, MatrixView to, MatrixView from) { member.backend().Add(to, from); },
      x, y);
}

void TensorDevices::ScaleRows(MatrixView x, std::span<const float> factors) {
  for (const auto& other : others_) {
    if (!IsEverywhere(x)) break;
    other->queue->Await();  // it may still need the last ones
    other->factors.assign(factors.begin(), factors.end());
  }
  Everywhere(
      [this, factors](TensorMember& member, MatrixView m) {
        const uint32_t d = member.rank();
        member.backend().ScaleRows(m, d == 0 ? factors : std::span(others_[d - 1]->factors));
      },
      x);
}

Status TensorDevices::Synchronize() {
  if (ok()) Settle();
  passing_ = false;
  pending_ = unjoined_ = {};
  shared_ = {};
  parted_ = nullptr;
  for (uint32_t d = 1; d < count(); ++d) {
    others_[d - 1]->queue->Post([this, d] {
      others_[d - 1]->status = others_[d - 1]->backend->Synchronize();
      if (!others_[d - 1]->status.ok()) Break(others_[d - 1]->status);
    });
  }
  const Status own = local_.Synchronize();
  bool forgotten = false;
  if (!own.ok()) {
    ForgetSteps();
    forgotten = true;
    Break(own);
  }
  for (const auto& other : others_) {
    while (!other->queue->idle()) {
      // Who ends a way waits until nothing is prepared over it.
      if (broken_ && !std::exchange(forgotten, true)) ForgetSteps();
      std::this_thread::yield();
    }
  }
  if (ok() && broken_) {
    const std::lock_guard lock(broken_mutex_);
    status_ = broken_why_;
  }
  return status_;
}

Result<std::unique_ptr<Model>> LoadParted(const ModelSource& source, Backend& devices,
                                          const LoadProgress& on_layer) {
  return LoadModel(*MakeNamedSource(source), devices, on_layer);
}

}  // namespace corpusd
