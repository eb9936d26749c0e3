// corpus-bench replay: traces of prefix reuse through the store's own eviction policy, beside LRU,
// S3-FIFO and the offline optimum.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "store/base/units.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/replay_cache.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct ReplayArguments {
  std::string trace_path;
  std::string pattern = "steady";
  uint32_t seed = 1;
  size_t requests = 3000;
  std::vector<std::string> bytes;
  std::string block_bytes = "1MiB";
  bool smoke = false;
  std::string format = "table";
};

struct Policy {
  const char* tier;
  const char* name;
  ReplayResult (*replay)(const Trace& trace, uint64_t blocks);
};

constexpr Policy kPolicies[] = {
    {"host", "store", [](const Trace& t, uint64_t b) { return ReplayStorePolicy(t, b, false); }},
    {"disk", "store", [](const Trace& t, uint64_t b) { return ReplayStorePolicy(t, b, true); }},
    {"any", "lru", ReplayLru},
    {"any", "s3-fifo", ReplayS3Fifo},
    {"any", "optimal", ReplayOptimal},
};

Result<std::vector<uint64_t>> SizesOf(const ReplayArguments& a, const Trace& trace,
                                      uint64_t block_bytes) {
  std::vector<uint64_t> sizes;
  for (const std::string& text : a.bytes) {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(text));
    if (bytes < block_bytes) {
      return InvalidArgumentError("--bytes " + text + " holds no block of " +
                                  FormatBytes(block_bytes));
    }
    sizes.push_back(bytes);
  }
  if (!sizes.empty()) return sizes;
  for (const uint64_t percent : {1, 2, 5, 10, 20, 40}) {
    sizes.push_back(std::max<uint64_t>(trace.unique_blocks * percent / 100, 1) * block_bytes);
  }
  if (a.smoke) sizes.resize(2);
  return sizes;
}

void PrintTable(const json& report) {
  std::printf("%s: %zu requests, %zu tokens, %zu blocks of 512 tokens of which %zu are unique\n",
              report["trace"].get<std::string>().c_str(), report["requests"].get<size_t>(),
              report["tokens"].get<size_t>(), report["block_uses"].get<size_t>(),
              report["unique_blocks"].get<size_t>());
  std::printf("%12s %7s  token hit rate: %8s %8s %8s %8s %8s   prefill saved: %6s %6s %6s\n",
              "tier bytes", "of all", "host", "disk", "lru", "s3-fifo", "optimal", "host", "disk",
              "lru");
  for (const json& size : report["sizes"]) {
    const json& rates = size["policies"];
    const auto rate = [&](size_t i, const char* what) {
      return 100 * rates[i][what].get<double>();
    };
    std::printf(
        "%12s %6.1f%%                  %8.2f %8.2f %8.2f %8.2f %8.2f"
        "                  %6.2f %6.2f %6.2f\n",
        FormatBytes(size["bytes"].get<uint64_t>()).c_str(),
        100 * size["share_of_unique"].get<double>(), rate(0, "token_hit_rate"),
        rate(1, "token_hit_rate"), rate(2, "token_hit_rate"), rate(3, "token_hit_rate"),
        rate(4, "token_hit_rate"), rate(0, "prefill_saved"), rate(1, "prefill_saved"),
        rate(2, "prefill_saved"));
  }
}

Status Replay(const ReplayArguments& a) {
  Result<Trace> trace = a.trace_path.empty()
                            ? MakeTrace(a.pattern, a.seed, a.smoke ? 300 : a.requests)
                            : ReadTrace(a.trace_path);
  RETURN_IF_ERROR(trace.status());
  ASSIGN_OR_RETURN(const uint64_t block_bytes, ParseBytes(a.block_bytes));
  if (block_bytes == 0) return InvalidArgumentError("--block-bytes must be above 0");
  ASSIGN_OR_RETURN(const auto sizes, SizesOf(a, *trace, block_bytes));
  json report = {{"trace", trace->name},
                 {"requests", trace->requests.size()},
                 {"tokens", trace->tokens},
                 {"block_uses", trace->block_uses},
                 {"unique_blocks", trace->unique_blocks},
                 {"block_bytes", block_bytes},
                 {"bound",
                  "optimal: Belady's MIN with bypass over blocks, which obeys the prefix "
                  "rule by itself; no policy finds more blocks"},
                 {"sizes", json::array()}};
  for (const uint64_t bytes : sizes) {
    const uint64_t blocks = bytes / block_bytes;
    json size = {{"bytes", bytes},
                 {"blocks", blocks},
                 {"share_of_unique",
                  static_cast<double>(blocks) / static_cast<double>(trace->unique_blocks)},
                 {"policies", json::array()}};
    for (const Policy& policy : kPolicies) {
      const ReplayResult result = policy.replay(*trace, blocks);
      json row = {{"tier", policy.tier},
                  {"policy", policy.name},
                  {"token_hit_rate", result.hit_tokens / static_cast<double>(trace->tokens)},
                  {"prefill_saved", result.saved_seconds / result.total_seconds}};
      if (result.half_life > 0) row["half_life_turnovers"] = result.half_life;
      size["policies"].push_back(row);
    }
    report["sizes"].push_back(size);
  }
  if (a.format == "json") {
    std::cout << report.dump() << "\n";
  } else {
    PrintTable(report);
  }
  return OkStatus();
}

}  // namespace

void AddReplayCommands(CLI::App& app, Status* status) {
  const auto arguments = std::make_shared<ReplayArguments>();
  CLI::App* const replay = app.add_subcommand(
      "replay",
      "token hit rate of the store's eviction policy on a trace, beside LRU, S3-FIFO and the "
      "offline optimum.\nTraces in Mooncake's format: github.com/kvcache-ai/Mooncake, "
      "FAST25-release/traces/*.jsonl");
  replay->add_option("--trace", arguments->trace_path, "a JSONL file; without it one is made");
  replay->add_option("--pattern", arguments->pattern, "of the made one: steady, shifting, scans");
  replay->add_option("--seed", arguments->seed, "of the made one");
  replay->add_option("--requests", arguments->requests, "of the made one")
      ->check(CLI::Range(1, 1000000));
  replay->add_option("--bytes", arguments->bytes, "sizes of the tier; 1 to 40 % of all blocks")
      ->delimiter(',');
  replay->add_option("--block-bytes", arguments->block_bytes, "of a block of 512 tokens");
  AddCommonOptions(replay, &arguments->smoke, &arguments->format);
  replay->callback([arguments, status] { *status = Replay(*arguments); });
}

}  // namespace corpusd
