// tests/bench/device_timing.h -- how the benches of CUDA kernels check calls, take memory and time:
// for programs, which a failed call ends. One thread, the default stream.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace corpusd::cuda {

// Ends the program if a call has failed.
inline void Check(int error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(error)));
  std::exit(1);
}

// Median milliseconds of a call, each timed alone, after `warm_ups` that are not.
template <class Call>
double MedianMs(int repeats, int warm_ups, const Call& call) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<float> times(repeats);
  for (int i = 0; i < warm_ups; ++i) call();
  for (float& ms : times) {
    Check(cudaEventRecord(begin), "event");
    call();
    Check(cudaEventRecord(end), "event");
    Check(cudaEventSynchronize(end), "wait");
    Check(cudaEventElapsedTime(&ms, begin, end), "event");
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// A call's kernels as a CUDA graph, as an engine's steps run.
class GraphOf {
 public:
  // call(stream) enqueues the kernels.
  template <class Call>
  explicit GraphOf(const Call& call) {
    cudaStream_t stream = nullptr;
    Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    call(stream);
    cudaGraph_t graph = nullptr;
    Check(cudaStreamEndCapture(stream, &graph), "capture");
    Check(cudaGraphInstantiate(&graph_, graph, 0), "graph");
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
  ~GraphOf() { cudaGraphExecDestroy(graph_); }
  GraphOf(const GraphOf&) = delete;
  GraphOf& operator=(const GraphOf&) = delete;
  void Launch() const { Check(cudaGraphLaunch(graph_, nullptr), "launch"); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

// Device memory of one measurement.
class Memory {
 public:
  ~Memory() {
    for (void* piece : pieces_) cudaFree(piece);
  }
  template <class T>
  T* Take(size_t count) {
    void* piece = nullptr;
    Check(cudaMalloc(&piece, count * sizeof(T)), "allocate");
    pieces_.push_back(piece);
    return static_cast<T*>(piece);
  }
  template <class T>
  T* Copy(const std::vector<T>& values) {
    T* piece = Take<T>(values.size());
    Check(cudaMemcpy(piece, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "copy");
    return piece;
  }

 private:
  std::vector<void*> pieces_;
};

// Bytes read and written in a second by a copy, which should be far larger than any cache.
inline double CopyBandwidth(size_t bytes) {
  Memory memory;
  auto* const from = memory.Take<uint8_t>(bytes);
  auto* const to = memory.Take<uint8_t>(bytes);
  const double ms = MedianMs(
      9, 3, [&] { Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "copy"); });
  return 2.0 * static_cast<double>(bytes) / ms * 1e3;
}
// What benches copy for their ceiling.
constexpr size_t CopiedBytes(bool smoke) { return size_t{smoke ? 64u : 4096u} << 20; }

}  // namespace corpusd::cuda
