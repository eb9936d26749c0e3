#include "tests/bench/ranks_grid.h"

#include <map>
#include <mutex>

#include "engine/model/hf_config.h"
#include "engine/ranks/in_process_transport.h"
#include "engine/ranks/ranked_prefill.h"
#include "engine/ranks/tensor_devices.h"
#include "store/base/crc32c.h"
#include "tests/bench/random_model.h"
#include "tests/bench/rank_devices.h"
#include "tests/bench/scout_shape.h"

namespace corpusd {
namespace {

using Json = nlohmann::json;
using Devices = std::vector<uint32_t>;      // of a rank, that which has the pages first
constexpr uint32_t kRankTokens = 2 * 8192;  // two spans of pages

// One rank with its devices, and the way to the others.
class GridRank {
 public:
  GridRank(const Devices& devices, uint32_t rank, uint32_t ranks, const NcclJobId& id)
      : first_(Require(MakeCudaBackend(static_cast<int>(devices.front()), 8))) {
    TensorDevicesOptions options;
    options.cpu = {8, "auto"};
    for (const uint32_t d : devices) options.devices.push_back("cuda:" + std::to_string(d));
    if (devices.size() > 1) shared_ = Require(TensorDevices::Open(*first_, *first_, options));
    Backend& over = shared_ == nullptr ? *first_ : *shared_;
    ranked_ = std::make_unique<RankedBackend>(over, *first_);
    if (ranks == 1) {
      transport_ = std::move(MakeInProcessTransports(1, kTransferTimeout).front());
    } else {
      NcclJob job;
      job.id = id;
      job.rank = rank;
      job.size = ranks;
      job.device = static_cast<int>(devices.front());
      transport_ = Require(JoinNcclJob(job));
    }
    ranked_->Join(*transport_);
  }

  void Load(const ModelSource& source) {
    model_ =
        Require(shared_ == nullptr ? LoadModel(source, *ranked_) : LoadParted(source, *ranked_));
    layout_.blocks = layout_.own = Require(model_->Format("bf16"));
    layout_.parts = model_->parts();
  }
  // kept(block, checksum): of what this rank keeps of the layers that see everything; may be empty.
  void Prefill(std::span<const TokenId> ids,
               const std::function<void(uint64_t block, uint32_t checksum)>& kept) {
    const auto prefill = Require(RankedPrefill::Create(*model_, *ranked_, *transport_, layout_,
                                                       {.rank_tokens = kRankTokens}));
    std::vector<std::byte> bytes;
    Require(prefill->Run(ids, 0, [&](const KeptBlock& block) {
      if (!kept || block.parts.front().empty()) return OkStatus();
      bytes.resize(block.parts.front().size());
      RETURN_IF_ERROR(first_->Copy(bytes.data(), block.parts.front().data(), bytes.size()));
      kept(block.block, Crc32c(bytes));
      return OkStatus();
    }));
    Require(ranked_->Synchronize());
  }

 private:
  const std::unique_ptr<Backend> first_;
  std::unique_ptr<TensorDevices> shared_;
  std::unique_ptr<RankedBackend> ranked_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Model> model_;
  KvLayout layout_;
};

struct GridRun {
  double seconds = 0;
  std::map<uint64_t, uint32_t> blocks;  // checksums
  std::vector<double> gib;              // of each device
};

GridRun Measure(const ModelSource& source, const std::vector<Devices>& ranks,
                std::span<const TokenId> ids) {
  const auto count = static_cast<uint32_t>(ranks.size());
  const NcclJobId id = count == 1 ? NcclJobId() : Require(MakeNcclJobId());
  std::map<uint32_t, double> before;
  for (const Devices& devices : ranks) {
    for (const uint32_t d : devices) before[d] = UsedGib(static_cast<int>(d));
  }
  GridRun run;
  std::mutex mutex;
  std::barrier meet(count);
  std::vector<std::jthread> threads;
  for (uint32_t r = 0; r < count; ++r) {
    threads.emplace_back([&, r] {
      GridRank rank(ranks[r], r, count, id);
      rank.Load(source);
      rank.Prefill(ids, [&](uint64_t block, uint32_t checksum) {
        const std::lock_guard lock(mutex);
        run.blocks[block] = checksum;
      });
      meet.arrive_and_wait();
      const auto begin = std::chrono::steady_clock::now();
      rank.Prefill(ids, {});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      meet.arrive_and_wait();
      const std::lock_guard lock(mutex);
      run.seconds = std::max(run.seconds, took.count());
      if (r > 0) return;
      for (const auto& [d, gib] : before) run.gib.push_back(UsedGib(static_cast<int>(d)) - gib);
    });
  }
  threads.clear();
  return run;
}

}  // namespace

void MeasureGrid(uint32_t layers, uint32_t tokens, uint32_t vocabulary) {
  Json shape = ScoutShape(/*smoke=*/false);
  shape["num_hidden_layers"] = layers;
  if (vocabulary > 0) shape["vocab_size"] = vocabulary;
  const HfConfig config = Require(ReadHfConfig(shape, "the bench's shape"));
  const auto source = MakeRandomModel(config.model);
  std::vector<TokenId> ids(tokens);
  for (uint32_t i = 0; i < tokens; ++i) ids[i] = i * 7919 % config.model.vocabulary;
  const GridRun one = Measure(*source, {{0}}, ids);
  const GridRun two = Measure(*source, {{0}, {1}}, ids);
  const GridRun grid = Measure(*source, {{0, 1}, {2, 3}}, ids);
  Print({{"grid_layers", layers},
         {"prefill_tokens", tokens},
         {"one_s", one.seconds},
         {"two_ranks_s", two.seconds},
         {"grid_s", grid.seconds},
         {"one_tokens_per_s", tokens / one.seconds},
         {"grid_tokens_per_s", tokens / grid.seconds},
         {"two_ranks_speedup", one.seconds / two.seconds},
         {"grid_speedup", one.seconds / grid.seconds},
         {"gib_one", one.gib},
         {"gib_two_ranks", two.gib},
         {"gib_grid", grid.gib},
         {"blocks", grid.blocks.size()},
         {"grid_has_the_bytes_of_two_ranks", grid.blocks == two.blocks}});
}

}  // namespace corpusd
