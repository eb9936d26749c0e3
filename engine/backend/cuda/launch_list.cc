#include "engine/backend/cuda/launch_list.h"

#include <algorithm>

#include "engine/backend/cuda/cuda_error.h"

namespace corpusd {
namespace {

// Fewer are launched as fast as a graph of them.
constexpr uint32_t kLaunchesMin = 16;
// Questions that decode together change in number; each shape of a step has its graph.
constexpr size_t kStepsMax = 8;

}  // namespace

int LaunchList::RunAll() const {
  for (const std::byte* at = bytes_.data(); at < bytes_.data() + bytes_.size();) {
    Run run = nullptr;
    std::memcpy(&run, at, sizeof run);
    at += sizeof run;
    if (const int error = run(&at, stream_)) return error;
  }
  return cudaSuccess;
}

int LaunchList::Capture(Step* step) const {
  if (const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal)) {
    return error;
  }
  const int failed = RunAll();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  if (failed != 0 || ended != cudaSuccess) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    return failed != 0 ? failed : ended;
  }
  const cudaError_t error = cudaGraphInstantiate(&step->graph, graph, 0);
  cudaGraphDestroy(graph);
  return error;
}

int LaunchList::Flush(bool may_be_graph) {
  if (count_ == 0) return cudaSuccess;
  int error = cudaSuccess;
  if (count_ < kLaunchesMin || !may_be_graph) {
    error = RunAll();
  } else {
    const auto found =
        std::ranges::find_if(steps_, [&](const Step& s) { return s.bytes == bytes_; });
    if (found == steps_.end()) {
      if (steps_.size() == kStepsMax) {
        if (steps_.back().graph != nullptr) cudaGraphExecDestroy(steps_.back().graph);
        steps_.pop_back();
      }
      steps_.push_front({bytes_, nullptr});
      error = RunAll();
    } else {
      steps_.splice(steps_.begin(), steps_, found);
      Step& step = steps_.front();
      if (step.graph == nullptr) error = Capture(&step);
      if (error == cudaSuccess) error = cudaGraphLaunch(step.graph, stream_);
      ++graphs_launched_;
    }
  }
  Discard();
  return error;
}

void LaunchList::Forget() {
  for (const Step& step : steps_) {
    if (step.graph != nullptr) cudaGraphExecDestroy(step.graph);
  }
  steps_.clear();
  Discard();
}

Result<const std::byte*> ParameterSlots::Put(const void* data, uint64_t bytes) {
  const auto* const from = static_cast<const std::byte*>(data);
  const auto holds = [&](const Slot& slot) {
    return slot.content.size() == bytes && std::memcmp(slot.content.data(), from, bytes) == 0;
  };
  for (size_t i = 0; i < used_; ++i) {
    if (holds(slots_[i])) return slots_[i].buffer->data();
  }
  if (used_ == slots_.size()) slots_.emplace_back();
  Slot& slot = slots_[used_];
  if (slot.buffer != nullptr && holds(slot)) {
    ++used_;
    return slot.buffer->data();
  }
  slot.content.clear();
  if (slot.buffer == nullptr || slot.buffer->bytes() < bytes) {
    // What is under way may read the old piece, whose next owner need not wait for the stream.
    if (slot.buffer != nullptr) {
      RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "wait for the device"));
    }
    slot.buffer.reset();
    ASSIGN_OR_RETURN(slot.buffer, CudaBuffer::Create(pool_, bytes + bytes / 2 + 256, "arguments"));
  }
  // From pageable memory: what is copied has been read when the call returns.
  RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(slot.buffer->data(), data, bytes, cudaMemcpyHostToDevice, stream_), "copy"));
  slot.content.assign(from, from + bytes);
  ++used_;
  return slot.buffer->data();
}

}  // namespace corpusd
