// engine/backend/expert_routing.h -- mixtures of experts out of a backend's other operations: which
// rows of a call go through which expert, and what one expert makes of its rows. For memory that
// the host can address. One caller at a time, the backend's.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"

namespace corpusd {

// The rows that go through one expert, and what each is multiplied by first.
struct ExpertRows {
  std::vector<uint32_t> rows;
  std::vector<float> factors;
};

// [logits.cols], as Backend::MixExperts chooses. logits: complete.
std::vector<ExpertRows> RouteToExperts(MatrixView logits, uint32_t used);

// The output of one expert: row i, in the memory of input.result, is that of routed.rows[i].
// REQUIRES: routed has a row.
MatrixView ApplyExpert(Backend& backend, const ExpertInput& input, const Weight& gate_up,
                       const Weight& down, const ExpertRows& routed);
inline MatrixView ApplyExpert(Backend& backend, const ExpertInput& input, const Expert& expert,
                              const ExpertRows& routed) {
  return ApplyExpert(backend, input, *expert.gate_up, *expert.down, routed);
}

// out[routed.rows[i], :] += result[i, :]
void AddExpertRows(MatrixView out, const ExpertRows& routed, MatrixView result);

}  // namespace corpusd
