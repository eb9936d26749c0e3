// tests/bench/rank_devices.h -- what ranks_bench measures with: CUDA devices as ranks of one
// job, texts whose pages they share, and one of them alone. For programs: an error ends them.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/ranks/nccl_transport.h"
#include "engine/ranks/ranked_backend.h"
#include "tests/bench/device_random.h"
#include "tests/bench/require.h"

namespace corpusd {

// Llama 4 Scout's, and how many of its layers see everything.
inline const AttentionShape kScout{40, 8, 128, 1 / std::sqrt(128.0F)};
inline constexpr uint32_t kScoutWholeLayers = 12;

// Pages of one text on one device.
struct DeviceText {
  KvFormat format;
  std::vector<std::unique_ptr<Buffer>> memory;
  std::vector<KvPage> pages;

  // The first `tokens`, those that `here` does not want being remote.
  std::vector<KvPage> Seen(uint64_t tokens, const std::function<bool(uint64_t)>& here) const {
    std::vector<KvPage> seen(pages.begin(),
                             pages.begin() + static_cast<ptrdiff_t>(tokens / kBlockTokens));
    for (uint64_t i = 0; i < seen.size(); ++i) {
      if (!here(i)) seen[i].bytes = RemotePage();
    }
    return seen;
  }
};

inline std::vector<LayerReach> WholeLayers(uint32_t count) {
  return std::vector<LayerReach>(count, LayerReach{true, 0});
}

inline KvFormat Bf16Pages(uint32_t layers) {
  KvFormat format;
  format.layers = layers;
  format.kv_heads = kScout.kv_heads;
  format.head_dim = kScout.head_dim;
  return format;
}

// Random bfloat16 pages, the same on every device; `here`: those that the device holds.
inline DeviceText RandomText(CudaBackend& backend, uint32_t layers, uint64_t tokens,
                             const std::function<bool(uint64_t)>& here) {
  DeviceText text;
  text.format = Bf16Pages(layers);
  const uint64_t bytes = text.format.BlockBytes();
  for (uint64_t page = 0; page * kBlockTokens < tokens; ++page) {
    KvPage& added = text.pages.emplace_back();
    added.bytes = RemotePage();
    added.first_position = page * kBlockTokens;
    added.tokens = kBlockTokens;
    if (!here(page)) continue;
    text.memory.push_back(Require(backend.Allocate(bytes, "a page")));
    added.bytes = text.memory.back()->data();
    auto* const values = reinterpret_cast<uint16_t*>(text.memory.back()->data());
    backend.Clear(text.memory.back()->data(), 64);  // the device of this thread
    if (cuda::FillBfloats(values, bytes / 2, page + 1,
                          static_cast<CUstream_st*>(backend.stream())) != cudaSuccess) {
      Require(InternalError("fill a page"));
    }
  }
  Require(backend.Synchronize());
  return text;
}

// Row r of seed s is row 0 of seed s + r: rows that are dealt are those of one device.
inline void FillQueries(CudaBackend& backend, MatrixView q, uint64_t seed) {
  backend.Clear(reinterpret_cast<std::byte*>(q.data), 64);  // the device of this thread
  if (cuda::FillRows(q.data, q.rows, q.cols, seed, static_cast<CUstream_st*>(backend.stream())) !=
      cudaSuccess) {
    Require(InternalError("fill queries"));
  }
}

// Rows of queries and of outputs.
struct Rows {
  std::unique_ptr<Buffer> q_memory, out_memory;
  MatrixView q, out;

  Rows(CudaBackend& backend, uint32_t rows, uint64_t seed) {
    const uint32_t cols = kScout.q_heads * kScout.head_dim;
    const uint64_t bytes = uint64_t{rows} * cols * sizeof(float);
    q_memory = Require(backend.Allocate(bytes, "queries"));
    out_memory = Require(backend.Allocate(bytes, "outputs"));
    q = q_memory->Matrix(rows, cols);
    out = out_memory->Matrix(rows, cols);
    backend.Clear(out_memory->data(), bytes);
    FillQueries(backend, q, seed);
    Require(backend.Synchronize());
  }
  std::vector<float> ReadOut(Backend& backend) const {
    std::vector<float> host(size_t{out.rows} * out.cols);
    Require(backend.Copy(reinterpret_cast<std::byte*>(host.data()), out_memory->data(),
                         host.size() * sizeof(float)));
    return host;
  }
};

inline AttentionInput InputOf(std::span<const KvPageList> lists, uint64_t first_position,
                              uint32_t layer = 0) {
  AttentionInput input;
  input.shape = kScout;
  input.layer = layer;
  input.first_position = first_position;
  input.lists = lists;
  return input;
}

// All pages, put together from nodes as ranks do.
inline void AttendInNodes(CudaBackend& backend, const Rows& rows, const AttentionInput& input,
                          Buffer& states) {
  const std::span floats(reinterpret_cast<float*>(states.data()),
                         NodeStateFloats(kScout, rows.q.rows));
  const MergeNode root;
  Require(backend.AttendNodes(floats, rows.q, input, {&root, 1}));
  Require(backend.MergeNodes(rows.out, floats, input, {&root, 1}));
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
// The least and the most, in milliseconds.
inline nlohmann::json Spread(const std::vector<double>& seconds) {
  const auto [low, high] = std::minmax_element(seconds.begin(), seconds.end());
  return {*low * 1e3, *high * 1e3};
}
// A line of its own, at once.
inline void Print(const nlohmann::json& record) {
  std::printf("%s\n", record.dump().c_str());
  std::fflush(stdout);
}

// GiB of a device in use.
inline double UsedGib(int device) {
  size_t free = 0, total = 0;
  (void)cudaSetDevice(device);
  (void)cudaMemGetInfo(&free, &total);
  return static_cast<double>(total - free) / (uint64_t{1} << 30);
}

// The ranks of a job, a device each.
class RankDevices {
 public:
  explicit RankDevices(uint32_t ranks, uint32_t node_width) {
    const NcclJobId id = Require(MakeNcclJobId());
    backends_.resize(ranks);
    transports_.resize(ranks);
    ranked_.resize(ranks);
    Each([&](uint32_t r) {
      backends_[r] = Require(CudaBackend::Create(static_cast<int>(r), 1, {}, node_width));
      NcclJob job;
      job.id = id;
      job.rank = r;
      job.size = ranks;
      job.device = static_cast<int>(r);
      transports_[r] = Require(JoinNcclJob(job));
      ranked_[r] = std::make_unique<RankedBackend>(*backends_[r], *transports_[r]);
    });
  }
  ~RankDevices() {
    Each([&](uint32_t r) {
      ranked_[r].reset();
      transports_[r].reset();
      backends_[r].reset();
    });
  }
  RankDevices(const RankDevices&) = delete;
  RankDevices& operator=(const RankDevices&) = delete;

  uint32_t size() const { return static_cast<uint32_t>(backends_.size()); }
  CudaBackend& backend(uint32_t r) { return static_cast<CudaBackend&>(*backends_[r]); }
  Transport& transport(uint32_t r) { return *transports_[r]; }
  RankedBackend& ranked(uint32_t r) { return *ranked_[r]; }

  // body(rank) in a thread a rank.
  template <typename Body>
  void Each(const Body& body) {
    std::vector<std::jthread> threads;
    for (uint32_t r = 0; r < size(); ++r) threads.emplace_back([&body, r] { body(r); });
  }
  // Seconds from when all begin until the last is done.
  template <typename Body>
  double Seconds(const Body& body) {
    std::barrier meet(size());
    std::vector<double> seconds(size());
    Each([&](uint32_t r) {
      meet.arrive_and_wait();
      const auto begin = std::chrono::steady_clock::now();
      body(r);
      Require(ranked(r).Synchronize());
      seconds[r] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
    return *std::max_element(seconds.begin(), seconds.end());
  }

 private:
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<RankedBackend>> ranked_;
};

// Seconds of one device's work.
template <typename Body>
double SecondsOf(Backend& backend, const Body& body) {
  Require(backend.Synchronize());
  const auto begin = std::chrono::steady_clock::now();
  body();
  Require(backend.Synchronize());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace corpusd
