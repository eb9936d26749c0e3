// engine/calibration/moment_collector.h -- what calibration learns from one pass over a window of
// text, layer by layer: how keys and values are spread, and what an error of a key costs. It reads
// the queries, keys, values and attention outputs that Forward leaves in its scratch. One thread
// calls; the work inside is spread over a pool.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/calibration/coordinates.h"
#include "engine/model/model_config.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/shapes.h"

namespace corpusd {

class MomentCollector {
 public:
  // Of one layer. output: W_o, [hidden, q_heads * head_dim], row-major. rope: as the model's.
  MomentCollector(const ModelConfig& config, const RopeTable& rope, std::vector<float> output);
  ~MomentCollector();
  MomentCollector(MomentCollector&&) noexcept;

  // One window from position 0. qkv: [tokens, (q_heads + 2 kv_heads) * head_dim], not rotated;
  // attention: [tokens, q_heads * head_dim], before W_o. first_query spreads the queries that are
  // looked at over windows.
  void Add(MatrixView qkv, MatrixView attention, uint32_t first_query, ThreadPool& pool);

  struct Head {
    KvMoments key, value;
  };
  // [kv_heads]. REQUIRES: a window was added.
  std::vector<Head> Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace corpusd
