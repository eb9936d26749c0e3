#include "engine/ranks/nccl_transport.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <mutex>
#include <thread>

#include "engine/backend/tensor_ops.h"

namespace corpusd {
namespace {

static_assert(sizeof(NcclJobId) == sizeof(ncclUniqueId));
constexpr std::chrono::microseconds kLookAgain{20};
// Short waits cost no sleep: a sleep of 20 us takes 70.
constexpr std::chrono::milliseconds kSleepAfter{20};
// Calls on the communicator only enqueue.
constexpr std::chrono::milliseconds kCallEnds{2'000};

Status NcclError(const char* what, ncclResult_t result) {
  return {StatusCode::kDeviceError, std::string(what) + ": " + ncclGetErrorString(result)};
}
Status CudaError(const char* what, cudaError_t error) {
  return {StatusCode::kDeviceError, std::string(what) + ": " + cudaGetErrorString(error)};
}

bool Failed(ncclResult_t result) { return result != ncclSuccess && result != ncclInProgress; }

// Calls on the communicator return before they are over: connections are made at first use, by both
// ends. RETURNS ncclInProgress if they are not over in time.
ncclResult_t AwaitReady(ncclComm_t communicator, ncclResult_t result,
                        std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (result == ncclInProgress && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kLookAgain);
    const ncclResult_t asked = ncclCommGetAsyncError(communicator, &result);
    if (asked != ncclSuccess) return asked;
  }
  return result;
}

// Multiprocessors of a message at most.
constexpr int kBlocksMax = 16;
// A device's part of a gather: two devices gather 10 MB in 0.46 ms, by messages in 0.54, but 40 MB
// in 1.5, by messages in 1.3.
constexpr uint64_t kGatheredMax = uint64_t{16} << 20;

// A rank that is lost before it has joined is waited for without an end: by a thread that is left
// behind then.
Result<ncclComm_t> Join(const NcclJob& job) {
  const auto joined = std::make_shared<std::promise<Result<ncclComm_t>>>();
  auto communicator = joined->get_future();
  std::thread([job, joined] {
    ncclUniqueId id;
    std::copy(job.id.begin(), job.id.end(), std::begin(id.internal));
    ncclComm_t made = nullptr;
    ncclResult_t result = ncclSystemError;
    if (cudaSetDevice(job.device) == cudaSuccess) {
      // Of the multiprocessors, which attention has at the same time; NCCL_MAX_CTAS sets another
      // number.
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.maxCTAs = kBlocksMax;
      result = ncclCommInitRankConfig(&made, static_cast<int>(job.size), id,
                                      static_cast<int>(job.rank), &config);
    }
    joined->set_value(result == ncclSuccess ? Result<ncclComm_t>(made)
                                            : NcclError("joining the job", result));
  }).detach();
  if (communicator.wait_for(job.transfer_timeout) == std::future_status::ready) {
    return communicator.get();
  }
  return Status(StatusCode::kDeadlineExceeded,
                "not all of " + std::to_string(job.size) + " ranks have joined the job of devices");
}

struct EventDeleter {
  void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};

// Transfers that began together.
struct Batch {
  std::unique_ptr<CUevent_st, EventDeleter> done;  // null: not begun
  uint32_t other = 0;                              // one of the ranks it is with
  Status status;
  bool over = false;
};

class NcclTransport final : public Transport, public DeviceLink {
 public:
  NcclTransport(const NcclJob& job, ncclComm_t communicator, cudaStream_t stream)
      : job_(job), communicator_(communicator), own_stream_(stream), stream_(stream) {}

  ~NcclTransport() override {
    // Not destroyed: that would wait for the other ranks. Nothing is under way any more.
    Fail(CancelledError("the job is over"));
    (void)cudaStreamDestroy(own_stream_);
  }

  uint32_t rank() const override { return job_.rank; }
  uint32_t size() const override { return job_.size; }
  std::string NameOf(uint32_t rank) const override {
    return "rank " + std::to_string(rank) + " of " + std::to_string(job_.size) + " (NCCL)";
  }

  TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) override {
    return Post({to, bytes.data(), nullptr, bytes.size()});
  }
  TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) override {
    return Post({from, nullptr, bytes.data(), bytes.size()});
  }

  TransferPtr Gather(std::span<std::byte> all) override {
    return Post({rank() == 0 ? 1U : 0U, nullptr, all.data(), all.size() / size(), true});
  }

  void Start() override {
    if (posted_.empty()) return;
    Begin([&] {
      for (const Operation& o : posted_) {
        const auto other = static_cast<int>(o.other);
        const ncclResult_t result =
            o.gathers ? ncclAllGather(o.target + o.bytes * rank(), o.target, o.bytes, ncclChar,
                                      communicator_, stream_)
            : o.source != nullptr
                ? ncclSend(o.source, o.bytes, ncclChar, other, communicator_, stream_)
                : ncclRecv(o.target, o.bytes, ncclChar, other, communicator_, stream_);
        if (Failed(result)) return result;
      }
      return ncclSuccess;
    });
    posted_.clear();
    batch_ = std::make_shared<Batch>();
  }

  bool RunOn(void* stream) override {
    Start();
    stream_ = stream == nullptr ? own_stream_ : static_cast<cudaStream_t>(stream);
    return true;
  }

  DeviceLink* link() override { return this; }
  int Enqueue(std::span<const DeviceMessage> messages, void* stream) override {
    const auto on = static_cast<cudaStream_t>(stream);
    const ncclResult_t result = PutOnStream([&] {
      for (const DeviceMessage& m : messages) {
        const auto other = static_cast<int>(m.other);
        const ncclResult_t put =
            m.sends != 0 ? ncclSend(m.data, m.bytes, ncclChar, other, communicator_, on)
                         : ncclRecv(m.data, m.bytes, ncclChar, other, communicator_, on);
        if (Failed(put)) return put;
      }
      return ncclSuccess;
    });
    return result == ncclSuccess ? cudaSuccess : cudaErrorUnknown;
  }
  int Gather(std::span<const DeviceParts> parts, void* stream) override {
    const auto on = static_cast<cudaStream_t>(stream);
    const ncclResult_t result = PutOnStream([&] {
      for (const DeviceParts& part : parts) {
        const ncclResult_t put = part.bytes <= kGatheredMax
                                     ? ncclAllGather(part.data + rank() * part.bytes, part.data,
                                                     part.bytes, ncclChar, communicator_, on)
                                     : GatherByMessages(part, on);
        if (Failed(put)) return put;
      }
      return ncclSuccess;
    });
    return result == ncclSuccess ? cudaSuccess : cudaErrorUnknown;
  }

  // Makes every connection that later calls need: NCCL makes one at its first use and then waits
  // for the other end without an end, also for one that is lost by then.
  Status Connect() {
    void* memory = nullptr;
    const size_t bytes = 8 * size_t{size()};
    cudaError_t error = cudaMalloc(&memory, 2 * bytes);
    if (error == cudaSuccess) error = cudaMemsetAsync(memory, 0, 2 * bytes, stream_);
    if (error != cudaSuccess) return CudaError("the words of a job's begin", error);
    const std::span words(static_cast<std::byte*>(memory), 2 * bytes);
    std::vector<TransferPtr> transfers;
    for (uint32_t other = 0; other < size(); ++other) {
      if (other == rank()) continue;
      transfers.push_back(Send(other, words.subspan(8 * other, 8)));
      transfers.push_back(Receive(other, words.subspan(bytes + 8 * other, 8)));
    }
    Status status = WaitAll(transfers);
    for (uint32_t root = 0; root < size() && status.ok(); ++root) {
      status = Broadcast(root, words.first(8));
    }
    if (status.ok()) status = AllGather(words.first(8), words.subspan(bytes, bytes));
    if (status.ok()) status = Barrier();
    (void)cudaFree(memory);
    return status;
  }

  Status Broadcast(uint32_t root, std::span<std::byte> bytes) override {
    return Collective([&] {
      return ncclBroadcast(bytes.data(), bytes.data(), bytes.size(), ncclChar,
                           static_cast<int>(root), communicator_, stream_);
    });
  }
  Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    CHECK(all.size() == mine.size() * size()) << all.size();
    return Collective([&] {
      return ncclAllGather(mine.data(), all.data(), mine.size(), ncclChar, communicator_, stream_);
    });
  }
  Status AllReduceSum(std::span<float> values) override {
    return Collective([&] {
      return ncclAllReduce(values.data(), values.data(), values.size(), ncclFloat, ncclSum,
                           communicator_, stream_);
    });
  }
  Status Barrier() override {
    (void)cudaSetDevice(job_.device);
    void* word = nullptr;
    cudaError_t error = cudaMalloc(&word, sizeof(float));
    if (error == cudaSuccess) error = cudaMemsetAsync(word, 0, sizeof(float), stream_);
    if (error != cudaSuccess) return CudaError("the word of a barrier", error);
    const Status status = AllReduceSum({static_cast<float*>(word), 1});
    (void)cudaFree(word);
    return status;
  }

  void Abort(const Status& why) override {
    // What another rank aborted or was lost for is passed on in its words.
    const StatusCode code = why.code();
    if (code == StatusCode::kAborted || code == StatusCode::kUnavailable) return Fail(why);
    Fail(Status(StatusCode::kAborted, NameOf(rank()) + " ended the job: " + why.ToString()));
  }

 private:
  struct Operation {
    uint32_t other;
    const std::byte* source;
    std::byte* target;
    size_t bytes;
    bool gathers = false;  // from all into target
  };
  class PostedTransfer final : public Transfer {
   public:
    PostedTransfer(NcclTransport& transport, std::shared_ptr<Batch> batch)
        : transport_(transport), batch_(std::move(batch)) {}
    Status Wait() override { return transport_.Await(*batch_); }

   private:
    NcclTransport& transport_;
    std::shared_ptr<Batch> batch_;
  };

  TransferPtr Post(const Operation& operation) {
    CHECK(operation.other < size() && operation.other != rank()) << operation.other;
    posted_.push_back(operation);
    batch_->other = operation.other;
    return std::make_unique<PostedTransfer>(*this, batch_);
  }

  ncclResult_t GatherByMessages(const DeviceParts& part, cudaStream_t on) {
    for (uint32_t step = 1; step < size(); ++step) {
      const uint32_t to = (rank() + step) % size(), from = (rank() + size() - step) % size();
      ncclResult_t put = ncclSend(part.data + rank() * part.bytes, part.bytes, ncclChar,
                                  static_cast<int>(to), communicator_, on);
      if (Failed(put)) return put;
      put = ncclRecv(part.data + from * part.bytes, part.bytes, ncclChar, static_cast<int>(from),
                     communicator_, on);
      if (Failed(put)) return put;
    }
    return ncclSuccess;
  }

  // What `enqueue` puts on the stream, as one group, becomes the batch.
  template <typename Enqueue>
  void Begin(const Enqueue& enqueue) {
    Batch& batch = *batch_;
    batch.over = true;
    batch.status = failure();
    if (!batch.status.ok()) return;
    (void)cudaSetDevice(job_.device);
    const ncclResult_t result = PutOnStream(enqueue);
    if (result == ncclInProgress) {
      batch.status = Late(batch.other);
      return Fail(batch.status);
    }
    cudaEvent_t event = nullptr;
    cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (error == cudaSuccess) {
      batch.done.reset(event);
      error = cudaEventRecord(event, stream_);
    }
    if (Failed(result)) batch.status = NcclError("starting a transfer", result);
    if (const Status ended = failure(); !ended.ok()) batch.status = ended;
    if (error != cudaSuccess) batch.status = CudaError("starting a transfer", error);
    batch.over = !batch.status.ok();
    if (batch.over) Fail(batch.status);
  }

  template <typename Calls>
  ncclResult_t PutOnStream(const Calls& enqueue) {
    const std::lock_guard in_use(in_use_);
    if (!failure().ok()) return ncclInvalidUsage;
    ncclResult_t result = ncclGroupStart();
    if (!Failed(result)) result = enqueue();
    const ncclResult_t end = ncclGroupEnd();
    return Failed(result) ? result : AwaitReady(communicator_, end, job_.transfer_timeout);
  }
  // What NCCL knows of the other ranks.
  ncclResult_t Trouble() {
    const std::lock_guard in_use(in_use_);
    ncclResult_t trouble = ncclSuccess;
    if (failure().ok()) (void)ncclCommGetAsyncError(communicator_, &trouble);
    return trouble;
  }

  template <typename Enqueue>
  Status Collective(const Enqueue& enqueue) {
    Start();
    batch_->other = rank() == 0 && size() > 1 ? 1 : 0;
    const std::shared_ptr<Batch> batch = batch_;
    Begin(enqueue);
    batch_ = std::make_shared<Batch>();
    return Await(*batch);
  }

  Status Await(Batch& batch) {
    if (batch.done == nullptr && !batch.over) Start();
    const auto begin = std::chrono::steady_clock::now();
    const auto deadline = begin + job_.transfer_timeout;
    while (!batch.over) {
      const cudaError_t state = cudaEventQuery(batch.done.get());
      const ncclResult_t trouble = Trouble();
      batch.status = failure();
      if (state == cudaSuccess) {
        batch.over = true;
      } else if (!batch.status.ok()) {
        batch.over = true;
      } else if (state != cudaErrorNotReady) {
        batch.status = CudaError("waiting for a transfer", state);
      } else if (trouble != ncclSuccess && trouble != ncclInProgress) {
        batch.status = UnavailableError(NameOf(batch.other) +
                                        " or another was lost: " + ncclGetErrorString(trouble));
      } else if (std::chrono::steady_clock::now() > deadline) {
        batch.status = Late(batch.other);
      } else {
        const bool soon = std::chrono::steady_clock::now() < begin + kSleepAfter;
        soon ? std::this_thread::yield() : std::this_thread::sleep_for(kLookAgain);
        continue;
      }
      if (!batch.status.ok()) Fail(batch.status);
      batch.over = true;
    }
    return batch.status;
  }

  Status Late(uint32_t other) const {
    return {StatusCode::kDeadlineExceeded, NameOf(other) + " was waited for in vain for " +
                                               std::to_string(job_.transfer_timeout.count()) +
                                               " ms"};
  }

  Status failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  // Kernels under way end; nothing touches their memory after it.
  void Fail(const Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.ok()) return;
      failure_ = status;
    }
    // The communicator goes with it. A call that hangs in a full stream ends only by this.
    const bool alone = in_use_.try_lock_for(kCallEnds);
    (void)cudaSetDevice(job_.device);
    (void)ncclCommAbort(communicator_);
    if (alone) in_use_.unlock();
  }

  const NcclJob job_;
  const ncclComm_t communicator_;
  const cudaStream_t own_stream_;
  cudaStream_t stream_;            // on which the next batch begins
  std::vector<Operation> posted_;  // and not begun
  std::shared_ptr<Batch> batch_ = std::make_shared<Batch>();
  std::timed_mutex in_use_;  // the communicator
  std::mutex mutex_;         // of failure_
  Status failure_;
};

}  // namespace

Result<NcclJobId> MakeNcclJobId() {
  ncclUniqueId made;
  const ncclResult_t result = ncclGetUniqueId(&made);
  if (result != ncclSuccess) return NcclError("making a job's id", result);
  NcclJobId id;
  std::copy(std::begin(made.internal), std::end(made.internal), id.begin());
  return id;
}

Result<std::unique_ptr<Transport>> JoinNcclJob(const NcclJob& job) {
  CHECK(job.rank < job.size) << job.rank << " of " << job.size;
  // A program that uses multicast can put a host's devices out of service, for others too.
  (void)setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  // Exchanges in graphs are short: making their memory known to the other end is not worth it.
  (void)setenv("NCCL_GRAPH_REGISTER", "0", /*overwrite=*/0);
  // And they follow one another in one stream: an exchange takes a seventh less without NCCL's own
  // order between graphs and what runs outside of them.
  (void)setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", /*overwrite=*/0);
  cudaError_t error = cudaSetDevice(job.device);
  cudaStream_t stream = nullptr;
  // Transfers take a few multiprocessors at once, not when the blocks of a kernel are all begun.
  int least = 0, greatest = 0;
  if (error == cudaSuccess) error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
  if (error == cudaSuccess) {
    error = cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest);
  }
  if (error != cudaSuccess) return CudaError("the device of a rank", error);
  auto communicator = Join(job);
  if (!communicator.ok()) {
    (void)cudaStreamDestroy(stream);
    return communicator.status();
  }
  auto transport = std::make_unique<NcclTransport>(job, *communicator, stream);
  RETURN_IF_ERROR(transport->Connect());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace corpusd
