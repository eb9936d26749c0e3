// What a LlamaEngine does with ranks and devices that have parts of its weights and no text: calls
// them before the model is loaded, and tells where they stand.
#include <algorithm>

#include "engine/llama_engine.h"
#include "engine/ranks/shared_weights.h"

namespace corpusd {

Status LlamaEngine::OpenTensorDevices() {
  const EngineRanks& ranks = options_.ranks;
  TensorDevicesOptions options;
  options.devices = ranks.DevicesFrom(0);
  if (options.devices.size() != ranks.tensor_ranks) {
    return UnimplementedError("devices that share weights are those of one process: " +
                              std::to_string(options.devices.size()) + " devices, " +
                              std::to_string(ranks.tensor_ranks) + " parts");
  }
  options.source = ranks.source;
  options.cpu = {RankThreads(options_.threads, ranks.devices.size()), options_.isa};
  options.timeout = ranks.timeout;
  options.on_lost = options_.on_device_lost;
  ASSIGN_OR_RETURN(tensor_devices_, TensorDevices::Open(*local_backend_, *local_backend_, options));
  backend_ = tensor_devices_.get();
  return OkStatus();
}

Result<std::unique_ptr<Model>> LlamaEngine::LoadOverBackend() {
  return tensor_devices_ == nullptr ? LoadModel(*source_, *backend_, options_.on_layer_loaded)
                                    : LoadParted(*source_, *backend_, options_.on_layer_loaded);
}

Status LlamaEngine::OpenSharedWeights() {
  const EngineRanks& ranks = options_.ranks;
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

// Ranks with weights alone are there if the one is that they compute for.
void LlamaEngine::TellOfWeights(const Status& here, RanksReport* report) const {
  const uint32_t count = options_.ranks.tensor_ranks;
  for (RankStatus& rank : report->ranks) {
    if (rank.rank % count == 0) continue;
    const RankStatus& leader = report->ranks[rank.rank - rank.rank % count];
    const bool own = leader.rank == 0;
    rank.state = (own ? here.ok() : leader.state == "follows") ? "weights" : "missing";
    rank.error = own ? here.message() : leader.error;
  }
}

void LlamaEngine::TellOfDevices(RanksReport* report) const {
  const TensorDevices& devices = *tensor_devices_;
  if (options_.ranks.stride() == 1) {  // those of this process are one rank of the file
    for (uint32_t d = 0; d < devices.count(); ++d) {
      report->ranks.front().weight_bytes += devices.weight_bytes(d);
    }
    return;
  }
  const bool alone = report->ranks.empty();
  for (uint32_t d = 0; d < devices.count(); ++d) {
    RankStatus& device = alone ? report->ranks.emplace_back() : report->ranks[d];
    device.weight_bytes = devices.weight_bytes(d);
    if (!alone) continue;
    device.rank = d;
    device.name = "thread " + std::to_string(d) + ", " + options_.ranks.devices[d];
    if (d == 0) device.state = "leads";
  }
  TellOfWeights(OkStatus(), report);
}

RanksReport LlamaEngine::ranks() const {
  RanksReport report = ranks_ == nullptr ? RanksReport{} : ranks_->report();
  if (tensor_devices_ != nullptr) TellOfDevices(&report);
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
  TellOfWeights(shared_weights_->backend().status(), &report);
  report.ranks.front().weight_bytes = shared_weights_->backend().weight_bytes();
  for (uint32_t rank = 1; rank < count; ++rank) {
    report.ranks[rank].weight_bytes = peers[rank - 1].weight_bytes;
  }
  return report;
}

}  // namespace corpusd
