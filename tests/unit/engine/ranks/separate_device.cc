#include "tests/unit/engine/ranks/separate_device.h"

#include <sys/mman.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "engine/backend/forwarding_backend.h"
#include "engine/backend/node_attention.h"
#include "engine/ranks/host_tensor_ops.h"
#include "engine/ranks/in_process_transport.h"
#include "store/base/check.h"
#include "store/base/crc32c.h"

namespace corpusd {
namespace {

constexpr uint64_t kRegionBytes = uint64_t{1} << 30;
constexpr uint64_t kPieceAlignment = 256;

// One device's memory. Pieces never move; what is given back is handed out again.
class Region {
 public:
  Region()
      : begin_(static_cast<std::byte*>(mmap(nullptr, kRegionBytes, PROT_NONE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    CHECK(begin_ != MAP_FAILED) << "no memory for a device";
    free_[begin_] = kRegionBytes;
  }
  ~Region() { munmap(begin_, kRegionBytes); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  bool Holds(const void* address) const {
    return address >= begin_ && address < begin_ + kRegionBytes;
  }
  Result<std::byte*> Take(uint64_t bytes) {
    bytes = Rounded(bytes);
    const std::lock_guard lock(mutex_);
    for (auto piece = free_.begin(); piece != free_.end(); ++piece) {
      if (piece->second < bytes) continue;
      std::byte* const taken = piece->first;
      const uint64_t left = piece->second - bytes;
      free_.erase(piece);
      if (left > 0) free_[taken + bytes] = left;
      return taken;
    }
    return ResourceExhaustedError("the device is full");
  }
  void Give(std::byte* piece, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    auto at = free_.emplace(piece, Rounded(bytes)).first;
    if (auto next = std::next(at); next != free_.end() && at->first + at->second == next->first) {
      at->second += next->second;
      free_.erase(next);
    }
    if (at == free_.begin()) return;
    auto before = std::prev(at);
    if (before->first + before->second != at->first) return;
    before->second += at->second;
    free_.erase(at);
  }
  // While somebody has it open, the memory is there.
  void Open() {
    const std::lock_guard lock(mutex_);
    if (open_++ == 0) (void)mprotect(begin_, kRegionBytes, PROT_READ | PROT_WRITE);
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) (void)mprotect(begin_, kRegionBytes, PROT_NONE);
  }

 private:
  static uint64_t Rounded(uint64_t bytes) {
    return std::max<uint64_t>(1, (bytes + kPieceAlignment - 1) / kPieceAlignment) * kPieceAlignment;
  }
  std::byte* const begin_;
  std::mutex mutex_;
  std::map<std::byte*, uint64_t> free_;
  int open_ = 0;
};

class Opened {
 public:
  explicit Opened(Region& region) : region_(region) { region_.Open(); }
  ~Opened() { region_.Close(); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

 private:
  Region& region_;
};

// All regions of the process, for IsSeparate.
std::mutex& RegionsMutex() {
  static std::mutex mutex;
  return mutex;
}
std::set<const Region*>& Regions() {
  static std::set<const Region*> regions;
  return regions;
}

std::shared_ptr<Region> NewRegion() {
  auto region = std::shared_ptr<Region>(new Region, [](Region* gone) {
    {
      const std::lock_guard lock(RegionsMutex());
      Regions().erase(gone);
    }
    delete gone;
  });
  const std::lock_guard lock(RegionsMutex());
  Regions().insert(region.get());
  return region;
}

class RegionBuffer final : public Buffer {
 public:
  RegionBuffer(std::shared_ptr<Region> region, std::byte* data, uint64_t bytes)
      : region_(std::move(region)), data_(data), bytes_(bytes) {}
  ~RegionBuffer() override { region_->Give(data_, bytes_); }
  std::byte* data() override { return data_; }
  uint64_t bytes() const override { return bytes_; }

 private:
  const std::shared_ptr<Region> region_;
  std::byte* const data_;
  const uint64_t bytes_;
};

// The CPU's backend over the region.
class SeparateBackend final : public ForwardingBackend, public NodeAttention, public TensorOps {
 public:
  SeparateBackend(std::unique_ptr<Backend> cpu, std::shared_ptr<Region> region)
      : ForwardingBackend(*cpu),
        cpu_(std::move(cpu)),
        nodes_(*NodeAttentionOf(*cpu_)),
        ops_(*cpu_),
        region_(std::move(region)) {}

  std::string_view name() const override { return "separate"; }
  bool host_addressable() const override { return false; }
  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view /*purpose*/) override {
    ASSIGN_OR_RETURN(std::byte* const data, region_->Take(bytes));
    return std::unique_ptr<Buffer>(std::make_unique<RegionBuffer>(region_, data, bytes));
  }
  void Clear(std::byte* data, uint64_t bytes) override {
    const Opened opened(*region_);
    local_.Clear(data, bytes);
  }
  Status Copy(std::byte* target, const std::byte* source, uint64_t bytes) override {
    const Opened opened(*region_);
    return local_.Copy(target, source, bytes);
  }
  Status CopyBeside(std::span<const CopyPiece> pieces) override {
    const Opened opened(*region_);
    return local_.CopyBeside(pieces);
  }
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    const Opened opened(*region_);
    local_.Embed(out, table, ids);
  }
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    const Opened opened(*region_);
    local_.RmsNorm(out, x, gain, epsilon);
  }
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    const Opened opened(*region_);
    local_.MatMul(out, x, weight, accumulate);
  }
  void SwiGlu(MatrixView out, MatrixView gate_up) override {
    const Opened opened(*region_);
    local_.SwiGlu(out, gate_up);
  }
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override {
    const Opened opened(*region_);
    local_.WriteKv(target, keys, values, rope);
  }
  void WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys, MatrixView values,
                   const RopeTable* rope) override {
    const Opened opened(*region_);
    local_.WriteKvEach(targets, keys, values, rope);
  }
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    const Opened opened(*region_);
    local_.Attention(out, q, input);
  }
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override {
    const Opened opened(*region_);
    local_.AttentionEach(out, q, rows);
  }
  void AttentionOfParts(MatrixView out, MatrixView q,
                        std::span<const AttentionPart> parts) override {
    const Opened opened(*region_);
    local_.AttentionOfParts(out, q, parts);
  }
  Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                           PagePieces& pieces) override {
    const Opened opened(*region_);
    return local_.AttentionInPieces(out, q, input, pieces);
  }
  void HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) override {
    const Opened opened(*region_);
    local_.HeadNorm(x, head_dim, gain, epsilon);
  }
  void ScaleRows(MatrixView x, std::span<const float> factors) override {
    const Opened opened(*region_);
    local_.ScaleRows(x, factors);
  }
  void AddBias(MatrixView x, const float* bias) override {
    const Opened opened(*region_);
    local_.AddBias(x, bias);
  }
  void Add(MatrixView x, MatrixView y) override {
    const Opened opened(*region_);
    local_.Add(x, y);
  }
  void CopyMatrix(MatrixView target, MatrixView source) override {
    const Opened opened(*region_);
    local_.CopyMatrix(target, source);
  }
  void GeGlu(MatrixView out, MatrixView gate_up) override {
    const Opened opened(*region_);
    local_.GeGlu(out, gate_up);
  }
  void MixExperts(MatrixView out, const ExpertInput& input) override {
    const Opened opened(*region_);
    local_.MixExperts(out, input);
  }
  Status AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                     std::span<const MergeNode> nodes) override {
    const Opened opened(*region_);
    return nodes_.AttendNodes(states, q, input, nodes);
  }
  Status MergeNodes(MatrixView out, std::span<const float> states, const AttentionInput& input,
                    std::span<const MergeNode> nodes) override {
    const Opened opened(*region_);
    return nodes_.MergeNodes(out, states, input, nodes);
  }
  void Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) override {
    ops_.Exchange(link, messages);
  }
  void Gather(DeviceLink& link, std::span<const DeviceParts> parts) override {
    ops_.Gather(link, parts);
  }
  void CopyColumns(MatrixView out, MatrixView in, std::span<const ColumnPiece> pieces) override {
    const Opened opened(*region_);
    ops_.CopyColumns(out, in, pieces);
  }
  MatrixView RaiseExperts(const ExpertParts& /*parts*/) override {
    CHECK(false) << "a mixture, whose numbers would be the host's";
    return {};
  }
  void LowerExperts(MatrixView /*out*/, const ExpertParts& /*parts*/) override {}
  Status error() const override { return ops_.error(); }
  uint32_t span_pages() const override { return nodes_.span_pages(); }
  // As devices have them; no transport here runs on it.
  uint32_t leaf_width() const override { return 8; }
  void* stream() const override { return region_.get(); }

 private:
  const std::unique_ptr<Backend> cpu_;
  NodeAttention& nodes_;
  HostTensorOps ops_;
  const std::shared_ptr<Region> region_;
};

// The region as a device tier's memory.
class RegionMemory final : public DeviceMemory {
 public:
  explicit RegionMemory(std::shared_ptr<Region> region) : region_(std::move(region)) {}

  std::string_view name() const override { return "separate"; }
  Result<uint64_t> Allocate(uint64_t bytes) override {
    ASSIGN_OR_RETURN(std::byte* const data, region_->Take(bytes));
    const std::lock_guard lock(mutex_);
    sizes_[data] = bytes;
    return reinterpret_cast<uint64_t>(data);
  }
  void Free(uint64_t address) override {
    auto* const data = reinterpret_cast<std::byte*>(address);
    const std::lock_guard lock(mutex_);
    region_->Give(data, sizes_.at(data));
    sizes_.erase(data);
  }
  std::unique_ptr<DeviceCopy> CopyIn(uint64_t address, std::span<const std::byte> source) override {
    const Opened opened(*region_);
    std::copy(source.begin(), source.end(), reinterpret_cast<std::byte*>(address));
    return std::make_unique<Copied>();
  }
  std::unique_ptr<DeviceCopy> CopyOut(uint64_t address, std::span<std::byte> target) override {
    const Opened opened(*region_);
    std::copy_n(reinterpret_cast<const std::byte*>(address), target.size(), target.begin());
    return std::make_unique<Copied>();
  }
  Status Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) override {
    const Opened opened(*region_);
    const uint64_t part = bytes / crcs.size();
    for (size_t i = 0; i < crcs.size(); ++i) {
      const std::span here(reinterpret_cast<const std::byte*>(address) + i * part, part);
      if (Crc32c(here) != crcs[i]) return CorruptionError("part " + std::to_string(i) + " differs");
    }
    return OkStatus();
  }

 private:
  struct Copied final : DeviceCopy {
    Status Wait() override { return OkStatus(); }
  };
  const std::shared_ptr<Region> region_;
  std::mutex mutex_;
  std::map<std::byte*, uint64_t> sizes_;
};

// Transfers between devices. All regions of a job are open for as long as a transfer is.
class SeparateTransport final : public Transport {
 public:
  SeparateTransport(std::unique_ptr<Transport> base, std::vector<std::shared_ptr<Region>> regions)
      : base_(std::move(base)), regions_(std::move(regions)) {}

  uint32_t rank() const override { return base_->rank(); }
  uint32_t size() const override { return base_->size(); }
  std::string NameOf(uint32_t rank) const override { return base_->NameOf(rank); }
  TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) override {
    CHECK(IsSeparate(bytes.data())) << "sent what is not the device's";
    return Post([&] { return base_->Send(to, bytes); });
  }
  TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) override {
    CHECK(IsSeparate(bytes.data())) << "received into what is not the device's";
    return Post([&] { return base_->Receive(from, bytes); });
  }
  void Abort(const Status& why) override { base_->Abort(why); }
  DeviceLink* link() override { return link_.get(); }

 private:
  struct Under final : Transfer {
    Under(TransferPtr posted, std::span<const std::shared_ptr<Region>> all)
        : transfer(std::move(posted)), regions(all.begin(), all.end()) {}
    ~Under() override {
      if (transfer != nullptr) (void)Under::Wait();
    }
    Status Wait() override {
      const Status status = transfer->Wait();
      transfer.reset();
      for (const auto& region : regions) region->Close();
      regions.clear();
      return status;
    }
    TransferPtr transfer;
    std::vector<std::shared_ptr<Region>> regions;
  };
  template <typename Start>
  TransferPtr Post(const Start& start) {
    for (const auto& region : regions_) region->Open();
    return std::make_unique<Under>(start(), regions_);
  }

  const std::unique_ptr<Transport> base_;
  const std::vector<std::shared_ptr<Region>> regions_;
  const std::unique_ptr<DeviceLink> link_ = LinkOver(*this);
};

class SeparateSource final : public DeviceSource {
 public:
  explicit SeparateSource(uint32_t span_pages) : span_pages_(span_pages) {}

  Result<std::unique_ptr<Backend>> MakeBackend(const std::string& device,
                                               const CpuBackendOptions& options,
                                               DeviceLost /*on_lost*/) override {
    auto cpu = span_pages_ == 0 ? MakeCpuBackend(options) : MakeCpuBackend(options, span_pages_);
    if (!cpu.ok()) return cpu.status();
    return std::unique_ptr<Backend>(
        std::make_unique<SeparateBackend>(*std::move(cpu), RegionOf(device)));
  }
  Result<DeviceRoom> MakeRoom(const std::string& device, uint64_t bytes) override {
    if (bytes == 0) bytes = uint64_t{256} << 20;
    return DeviceRoom{std::make_shared<RegionMemory>(RegionOf(device)), bytes};
  }
  // The first who comes for a job makes the transports of all.
  Result<std::unique_ptr<Transport>> Connect(Transport& control, const std::string& device,
                                             std::chrono::milliseconds timeout) override {
    uint64_t job = reinterpret_cast<uint64_t>(&control);
    RETURN_IF_ERROR(control.Broadcast(0, std::as_writable_bytes(std::span(&job, 1))));
    std::vector<std::shared_ptr<Region>> regions;
    std::unique_ptr<Transport> base;
    std::unique_lock lock(mutex_);
    Job& here = jobs_[job];
    here.regions.push_back(RegionOfLocked(device));
    if (here.transports.empty()) here.transports = MakeInProcessTransports(control.size(), timeout);
    base = std::move(here.transports[control.rank()]);
    joined_.notify_all();
    if (!joined_.wait_for(lock, timeout, [&] { return here.regions.size() == control.size(); })) {
      return UnavailableError("not all devices have joined");
    }
    regions = here.regions;
    if (++here.left == control.size()) jobs_.erase(job);
    return std::unique_ptr<Transport>(
        std::make_unique<SeparateTransport>(std::move(base), std::move(regions)));
  }

 private:
  struct Job {
    std::vector<std::unique_ptr<Transport>> transports;
    std::vector<std::shared_ptr<Region>> regions;
    uint32_t left = 0;
  };
  std::shared_ptr<Region> RegionOf(const std::string& device) {
    const std::lock_guard lock(mutex_);
    return RegionOfLocked(device);
  }
  std::shared_ptr<Region> RegionOfLocked(const std::string& device) {
    auto& region = regions_[device];
    if (region == nullptr) region = NewRegion();
    return region;
  }

  const uint32_t span_pages_;
  std::mutex mutex_;
  std::condition_variable joined_;
  std::map<std::string, std::shared_ptr<Region>> regions_;
  std::map<uint64_t, Job> jobs_;
};

}  // namespace

std::shared_ptr<DeviceSource> SeparateDevices(uint32_t span_pages) {
  return std::make_shared<SeparateSource>(span_pages);
}

bool IsSeparate(const void* address) {
  const std::lock_guard lock(RegionsMutex());
  const auto& all = Regions();
  return std::any_of(all.begin(), all.end(),
                     [&](const Region* region) { return region->Holds(address); });
}

}  // namespace corpusd
