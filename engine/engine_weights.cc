// What a LlamaEngine does with ranks and devices that have parts of its weights and no text: calls
// them before the model is loaded, and tells where they stand.
#include <algorithm>

#include "engine/llama_engine.h"
#include "engine/ranks/shared_weights.h"

namespace corpusd {

Status LlamaEngine::OpenTensorDevices() {
  const EngineRanks& ranks = options_.ranks;
  if (ranks.devices.size() != ranks.tensor_ranks) {
    return UnimplementedError("CUDA devices that share weights are all those of one process: " +
                              std::to_string(ranks.devices.size()) + " devices, " +
                              std::to_string(ranks.tensor_ranks) + " parts");
  }
  TensorDevicesOptions options;
  options.devices = ranks.devices;
  options.source = ranks.source;
  options.cpu = {RankThreads(options_.threads, ranks.devices.size()), options_.isa};
  options.timeout = ranks.timeout;
  options.on_lost = options_.on_device_lost;
  ASSIGN_OR_RETURN(tensor_devices_, TensorDevices::Open(*backend_, *local_backend_, options));
  backend_ = tensor_devices_.get();
  return OkStatus();
}

Result<std::unique_ptr<Model>> LlamaEngine::LoadOverBackend() {
  return tensor_devices_ == nullptr
             ? LoadModel(*source_, *backend_, options_.on_layer_loaded)
             : LoadParted(*source_, *tensor_devices_, options_.on_layer_loaded);
}

Status LlamaEngine::OpenSharedWeights() {
  const EngineRanks& ranks = options_.ranks;
  if (!local_backend_->host_addressable()) return OpenTensorDevices();
  const uint32_t count = ranks.tensor_ranks;
  SharedWeightsOptions options;
  if (!ranks.addresses.empty()) {
    options.addresses.assign(ranks.addresses.begin() + 1, ranks.addresses.begin() + count);
  }
  options.part.model_path = options_.model_path;
  options.part.isa = options_.isa;
  options.part.weights = options_.weights;
  options.part.threads = RankThreads(options_.threads, std::max<size_t>(1, ranks.devices.size()));
  options.part.cache_dir = options_.cache_dir;
  options.part.seat = {0, count};
  ASSIGN_OR_RETURN(options.digest, source_->WeightsDigestHex(options_.cache_dir));
  options.timeout = ranks.timeout;
  options.on_change = ranks.on_change;
  ASSIGN_OR_RETURN(shared_weights_, SharedWeights::Open(*backend_, options));
  shared_weights_->CallAgainWhenLost([this](const std::function<void()>& change) {
    const ComputeGate::Turn turn(gate_, ComputePriority::kQuestion);
    change();
  });
  backend_ = &shared_weights_->backend();
  return OkStatus();
}

RanksReport LlamaEngine::ranks() const {
  RanksReport report = ranks_ == nullptr ? RanksReport{} : ranks_->report();
  for (uint32_t d = 0; tensor_devices_ != nullptr && d < tensor_devices_->count(); ++d) {
    RankStatus& device = report.ranks.emplace_back();
    device.rank = d;
    device.name = "thread " + std::to_string(d) + ", " + options_.ranks.devices[d];
    device.state = d == 0 ? "leads" : "weights";
    device.weight_bytes = tensor_devices_->weight_bytes(d);
  }
  if (shared_weights_ == nullptr) return report;
  const uint32_t count = options_.ranks.tensor_ranks;
  const auto peers = shared_weights_->peers();
  if (report.ranks.empty()) {
    report.ranks.resize(count);
    report.ranks.front().name =
        options_.ranks.addresses.empty() ? "thread 0" : options_.ranks.addresses.front();
    report.ranks.front().state = "leads";
    for (uint32_t rank = 1; rank < count; ++rank) {
      report.ranks[rank].rank = rank;
      report.ranks[rank].name = options_.ranks.addresses.empty() ? "thread " + std::to_string(rank)
                                                                 : options_.ranks.addresses[rank];
    }
  }
  const Status here = shared_weights_->backend().status();
  report.ranks.front().weight_bytes = shared_weights_->backend().weight_bytes();
  for (RankStatus& rank : report.ranks) {
    if (rank.rank % count == 0) continue;
    // Those of another group are there if the one is that they compute for.
    const RankStatus& leader = report.ranks[rank.rank - rank.rank % count];
    const bool own = leader.rank == 0;
    rank.state = (own ? here.ok() : leader.state == "follows") ? "weights" : "missing";
    rank.error = own ? here.message() : leader.error;
    if (own) rank.weight_bytes = peers[rank.rank - 1].weight_bytes;
  }
  return report;
}

}  // namespace corpusd
