#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "daemon/access/tenant_secret.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "engine/backend/device_backend.h"
#include "engine/calibration/calibration_source.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/ranks/rank_crew.h"
#include "engine/ranks/rank_shelf.h"
#include "store/base/sha256.h"
#include "store/cuda/cuda_device_memory.h"

namespace corpusd {
namespace {

void LogWriteState(const WriteState& state) {
  if (state.read_only) {
    Log(LogLevel::kError, "store_read_only", {{"reason", state.reason}});
  } else {
    Log(LogLevel::kInfo, "store_writable", {});
  }
}

// A line every few seconds says that a large model is on its way.
struct LoadLogger {
  std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
  void operator()(uint32_t layers_done, uint32_t layers) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::seconds(5)) return;
    last = now;
    Log(LogLevel::kInfo, "model_loading", {{"layers_done", layers_done}, {"layers", layers}});
  }
};

void LogCalibration(size_t done, size_t windows) {
  // Four lines a calibration say that it goes on.
  if (done % ((windows + 3) / 4) != 0 && done != windows) return;
  Log(LogLevel::kInfo, "kv_calibration", {{"windows_done", done}, {"windows", windows}});
}

// A line every few passes, too: they take tens of seconds together.
void LogHeadSearch(size_t done, size_t passes) {
  if (done % ((passes + 3) / 4) != 0 && done != passes) return;
  Log(LogLevel::kInfo, "retrieval_heads", {{"passes_done", done}, {"passes", passes}});
}

// What other ranks know the data folder by: not its secret.
std::string NameOfStore(const std::string& secret) {
  Sha256 name;
  name.Update("corpusd ranks\n");
  name.Update(secret);
  return HexText(name.Finish());
}

}  // namespace

// Apart from daemon.cc, so that tests of the daemon need neither the engine nor RocksDB.
Result<std::unique_ptr<Daemon>> Daemon::Open(
    const Options& options, std::function<void(const Status& why)> on_device_lost) {
  auto metrics = std::make_unique<DaemonMetrics>();
  BlockStoreOptions store_options;
  store_options.data_dir = options.data_dir;
  store_options.host_bytes = options.host_bytes;
  store_options.disk_bytes = options.disk_bytes;
  store_options.evict_disk = options.evict_disk;
  store_options.disk_high_percent = options.disk_high_percent;
  store_options.disk_low_percent = options.disk_low_percent;
  store_options.evict_run_blocks = kRunBlocks;
  store_options.block_tokens = kBlockTokens;
  store_options.pins_owner_bytes = options.pins_owner_bytes;
  store_options.pins_total_bytes = options.pins_total_bytes;
  store_options.on_write_state = LogWriteState;
  store_options.observer = metrics.get();
  store_options.touch_host_memory = options.touch_host_memory;
  store_options.inflight_bytes = options.inflight_bytes;
  // A device's memory is shared out before the weights come: they are small beside it.
  const std::vector<std::string> devices = RankDevices(options);
  ASSIGN_OR_RETURN(const std::optional<int> cuda, ResolveDevice(devices.front()));
  if (cuda.has_value()) {
    ASSIGN_OR_RETURN(store_options.device, MakeCudaDeviceMemory(*cuda, options.device_bytes,
                                                                &store_options.device_bytes));
  }
  std::vector<std::string> addresses;
  if (!options.rank_file.empty()) {
    ASSIGN_OR_RETURN(addresses, ReadRankFile(options.rank_file));
    const uint32_t stride = RankFileStride(options);
    RETURN_IF_ERROR(CheckStride(addresses.size(), stride, options.rank_file));
    store_options.shelves = static_cast<uint32_t>(addresses.size() - 1);
    store_options.shelf_of = [stride, text_ranks = (store_options.shelves + 1) / stride](
                                 const CorpusRecord& record, uint64_t position) {
      return KeeperOf(record, position, text_ranks, stride);
    };
  }
  ASSIGN_OR_RETURN(std::unique_ptr<BlockStore> store, BlockStore::Open(store_options));
  EngineOptions engine_options;
  engine_options.model_path = options.model_path;
  engine_options.weights = options.weights;
  engine_options.on_layer_loaded = LoadLogger();
  engine_options.device = devices.front();
  if (devices.size() > 1) engine_options.ranks.devices = devices;
  engine_options.ranks.device_bytes = options.device_bytes;
  engine_options.ranks.addresses = addresses;
  engine_options.ranks.tensor_ranks = options.tensor_parallel;
  engine_options.ranks.timeout = options.rank_timeout;
  engine_options.ranks.on_change = [](const std::string& what) {
    Log(LogLevel::kInfo, "ranks", {{"what", what}});
  };
  engine_options.isa = options.isa;
  engine_options.kv_format = options.kv_format;
  ASSIGN_OR_RETURN(engine_options.tenant_salt, ReadTenantSecret(options.data_dir));
  engine_options.ranks.store_id = NameOfStore(engine_options.tenant_salt);
  engine_options.cache_dir = options.data_dir;
  engine_options.calibration_dir = options.data_dir + "/calibration";
  engine_options.calibration_cache = UserCacheFolder();
  engine_options.calibration_text = options.calibration_text;
  engine_options.quality_kld_max = options.quality_kld_max;
  engine_options.on_calibration = LogCalibration;
  engine_options.on_head_search = LogHeadSearch;
  engine_options.threads = options.threads;
  engine_options.prompt_cache_bytes = options.prompt_cache_bytes;
  engine_options.on_device_lost = std::move(on_device_lost);
  engine_options.observer = metrics.get();
  ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(engine_options, store.get()));
  const ModelSummary& model = engine->model();
  Log(LogLevel::kInfo, "model_loaded",
      {{"model", model.name},
       {"path", options.model_path},
       {"digest", model.digest},
       {"weights", options.weights},
       {"backend", model.backend},
       {"context_tokens", model.context_tokens}});
  return Start(options, std::move(store), std::move(engine), SystemNowMs, std::move(metrics));
}

}  // namespace corpusd
