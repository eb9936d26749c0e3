// corpus-bench host-tier: leasing blocks from host memory and reading all of their bytes, beside
// the machine's own read bandwidth.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "store/base/units.h"
#include "store/block_store.h"
#include "store/direct_file.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/raw_disk.h"

namespace corpusd {
namespace {

using nlohmann::json;

constexpr uint64_t kPayloadBytes = 819'200;  // SmolLM2 at 4 bit
constexpr uint32_t kBlockTokens = 128;

struct Arguments {
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string bytes = "1GiB";
  uint32_t rounds = 5;
  unsigned threads = std::thread::hardware_concurrency();
  bool smoke = false;
  std::string format = "table";
};

// One corpus of random bytes in the store, whole in its host tier.
Result<std::vector<Digest>> Fill(BlockStore& store, uint64_t blocks) {
  std::vector<TokenId> tokens(blocks * kBlockTokens);
  FillRandom(1, tokens.data(), tokens.size() * sizeof(TokenId));
  const auto chain = BuildChain({}, tokens, kBlockTokens);
  CorpusRecord record;
  record.name = "bench";
  record.block_bytes = kPayloadBytes;
  ASSIGN_OR_RETURN(record, store.CreateCorpus(record, tokens));
  PageBuffer payload(PagesOf(kPayloadBytes));
  for (uint64_t i = 0; i < blocks; ++i) {
    FillRandom(i + 2, payload.data(), kPayloadBytes);
    const auto first = tokens.begin() + static_cast<ptrdiff_t>(i * kBlockTokens);
    const BlockWrite block{
        chain[i], {first, first + kBlockTokens}, payload.bytes().first(kPayloadBytes), 32};
    ASSIGN_OR_RETURN(record, store.Publish(record, {&block, 1}));
  }
  return chain;
}

uint64_t SumOf(std::span<const std::byte> bytes) {
  const auto* const words = reinterpret_cast<const uint64_t*>(bytes.data());
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= bytes.size() / 8; i += 8) {
    for (size_t k = 0; k < 8; ++k) sums[k] += words[i + k];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

struct Rates {
  double lease_seconds = 0, read_bytes_per_s = 0;
};

Result<Rates> Measure(BlockStore& store, std::span<const Digest> chain, unsigned threads) {
  Rates rates;
  FetchStats stats;
  const auto start = BenchClock::now();
  ASSIGN_OR_RETURN(const auto refs, store.Fetch(chain, &stats));
  rates.lease_seconds = SecondsSince(start);
  if (stats.disk_bytes > 0) return InternalError("not all blocks were in host memory");
  const auto reading = BenchClock::now();
  std::vector<uint64_t> sums(threads);
  std::vector<std::jthread> readers;
  for (unsigned t = 0; t < threads; ++t) {
    readers.emplace_back([&, t] {
      for (size_t i = t; i < refs.size(); i += threads) sums[t] += SumOf(refs[i].bytes());
    });
  }
  readers.clear();
  const double seconds = SecondsSince(reading) + rates.lease_seconds;
  rates.read_bytes_per_s = static_cast<double>(chain.size() * kPayloadBytes) / seconds;
  volatile uint64_t kept = 0;
  for (const uint64_t sum : sums) kept = kept + sum;
  return rates;
}

Status BenchIn(const std::string& folder, const Arguments& a, uint64_t bytes) {
  BlockStoreOptions options;
  options.data_dir = folder;
  options.host_bytes = bytes + (uint64_t{64} << 20);
  ASSIGN_OR_RETURN(const auto store, BlockStore::Open(options));
  ASSIGN_OR_RETURN(const auto chain, Fill(*store, std::max<uint64_t>(1, bytes / kPayloadBytes)));
  std::vector<double> shares;
  std::vector<double> rates;
  std::vector<double> ceilings;
  std::vector<double> lease_us;
  for (uint32_t round = 0; round < a.rounds; ++round) {
    ceilings.push_back(MeasureCpuCeilings(a.threads, /*processor_time=*/false).read_gbytes * 1e9);
    ASSIGN_OR_RETURN(const Rates measured, Measure(*store, chain, a.threads));
    rates.push_back(measured.read_bytes_per_s);
    shares.push_back(rates.back() / ceilings.back());
    lease_us.push_back(measured.lease_seconds * 1e6 / static_cast<double>(chain.size()));
  }
  const Spread share = SpreadOf(shares);
  const json report = {
      {"command", "corpus-bench host-tier"},
      {"blocks", chain.size()},
      {"threads", a.threads},
      {"rounds", a.rounds},
      {"read_gb_per_s", SpreadOf(rates).median / 1e9},
      {"ceiling_gb_per_s", SpreadOf(ceilings).median / 1e9},
      {"share", {{"median", share.median}, {"min", share.min}, {"max", share.max}}},
      {"lease_us_per_block", SpreadOf(lease_us).median}};
  if (a.format == "json") {
    std::cout << report.dump(1) << "\n";
    return OkStatus();
  }
  std::printf(
      "%zu blocks of %s, %u threads: leased and read at %.1f GB/s, the machine reads "
      "%.1f GB/s: %.0f %% (%.0f..%.0f); a lease takes %.2f us\n",
      chain.size(), FormatBytes(kPayloadBytes).c_str(), a.threads, SpreadOf(rates).median / 1e9,
      SpreadOf(ceilings).median / 1e9, 100 * share.median, 100 * share.min, 100 * share.max,
      SpreadOf(lease_us).median);
  return OkStatus();
}

Status Bench(Arguments a) {
  ASSIGN_OR_RETURN(uint64_t bytes, ParseBytes(a.bytes));
  if (a.smoke) {
    bytes = uint64_t{8} << 20;
    a.rounds = 1;
  }
  a.threads = std::max(1u, a.threads);
  std::string folder = a.folder + "/corpus-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return IoError("cannot make a folder in " + a.folder);
  const Status status = BenchIn(folder, a, bytes);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return status;
}

}  // namespace

void AddHostTierCommand(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("host-tier", "leasing and reading blocks in host memory");
  command->add_option("--folder", a->folder, "for the store's disk tier (the temporary folder)");
  command->add_option("--bytes", a->bytes, "in the host tier (1GiB)");
  command->add_option("--rounds", a->rounds, "the median is reported")->check(CLI::Range(1, 100));
  command->add_option("--threads", a->threads, "that read (all)");
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
