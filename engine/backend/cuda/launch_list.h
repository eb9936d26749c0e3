// engine/backend/cuda/launch_list.h -- the kernels of a step, kept until all of them are known: a
// step of the same kernels with the same arguments as one before runs as one CUDA graph, without a
// gap for each launch. What changes from step to step must lie in device memory at addresses that
// stay (ParameterSlots). One thread at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "engine/backend/cuda/cuda_pool.h"
#include "store/base/result.h"

namespace corpusd {

class LaunchList {
 public:
  explicit LaunchList(cudaStream_t stream) : stream_(stream) {}
  ~LaunchList() { Forget(); }
  LaunchList(const LaunchList&) = delete;
  LaunchList& operator=(const LaunchList&) = delete;

  // Adds Function(arguments..., stream), which returns a cudaError_t. Arguments are compared byte
  // by byte: what lies between their members must not be random, or the step is never a graph.
  template <auto Function, typename... Arguments>
  void Add(const Arguments&... arguments) {
    static_assert((std::is_trivially_copyable_v<Arguments> && ...));
    Append(static_cast<Run>(&RunPacked<Function, Arguments...>));
    (Append(arguments), ...);
    ++count_;
  }
  bool empty() const { return count_ == 0; }
  // Runs what was added, if it may be as a graph. RETURNS the first cudaError_t.
  int Flush(bool may_be_graph = true);
  // Lets go of what was added.
  void Discard() { bytes_.clear(), count_ = 0; }
  // And of all graphs.
  void Forget();
  // Graphs that were launched, for tests and benches.
  uint64_t graphs_launched() const { return graphs_launched_; }

 private:
  using Run = int (*)(const std::byte** arguments, cudaStream_t stream);

  template <auto Function, typename... Arguments>
  static int RunPacked(const std::byte** bytes, cudaStream_t stream) {
    std::tuple<Arguments...> arguments;
    std::apply(
        [&](Arguments&... argument) {
          ((std::memcpy(&argument, *bytes, sizeof argument), *bytes += sizeof argument), ...);
        },
        arguments);
    return std::apply([&](const Arguments&... argument) { return Function(argument..., stream); },
                      arguments);
  }
  template <typename Value>
  void Append(const Value& value) {
    const size_t end = bytes_.size();
    bytes_.resize(end + sizeof value);
    std::memcpy(&bytes_[end], &value, sizeof value);
  }

  // A step that came before, and its graph from the second time on.
  struct Step {
    std::vector<std::byte> bytes;
    cudaGraphExec_t graph = nullptr;
  };
  int RunAll() const;
  int Capture(Step* step) const;

  const cudaStream_t stream_;
  std::vector<std::byte> bytes_;
  uint32_t count_ = 0;
  std::list<Step> steps_;  // the last ones, the last first
  uint64_t graphs_launched_ = 0;
};

// Small host data on the device at addresses that stay: the first distinct content of a step lies
// where the first one of the step before lay, and so on. One thread at a time; copies are in the
// order of the stream.
class ParameterSlots {
 public:
  ParameterSlots(std::shared_ptr<CudaPool> pool, cudaStream_t stream)
      : pool_(std::move(pool)), stream_(stream) {}

  // Begins a step: what earlier steps put is of no use any more. REQUIRES: the stream has passed
  // them.
  void Begin() { used_ = 0; }
  Result<const std::byte*> Put(const void* data, uint64_t bytes);
  void Forget() { slots_.clear(), used_ = 0; }

 private:
  struct Slot {
    std::vector<std::byte> content;
    std::unique_ptr<CudaBuffer> buffer;
  };
  const std::shared_ptr<CudaPool> pool_;
  const cudaStream_t stream_;
  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace corpusd
