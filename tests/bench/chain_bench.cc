// corpus-bench chain: a large catalogue: opening it, finding a long prefix in it, the memory of its
// index; beside the rate of SHA-256, which no lookup of a new chain can beat.
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "store/block_store.h"
#include "store/catalog.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/raw_disk.h"

namespace corpusd {
namespace {

using nlohmann::json;

constexpr uint32_t kBlockTokens = 128;
constexpr uint32_t kPublishBlocks = 16;

struct Arguments {
  std::string folder = std::filesystem::temp_directory_path().string();
  uint64_t blocks = 1'000'000;
  uint64_t chain_tokens = 10'000'000;
  uint32_t rounds = 5;
  bool smoke = false;
  std::string format = "table";
};

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t pages = 0;
  uint64_t resident = 0;
  file >> pages >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void DropPageCache(const std::string& folder) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    (void)fdatasync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

std::vector<TokenId> RandomTokens(uint64_t seed, uint64_t count) {
  std::vector<TokenId> tokens((count + 1) / 2 * 2);
  FillRandom(seed, tokens.data(), tokens.size() * sizeof(TokenId));
  for (TokenId& token : tokens) token %= 49152;  // a usual vocabulary
  tokens.resize(count);
  return tokens;
}

// A corpus as Publish leaves it, but for the payload, which no lookup reads.
Status AddCorpus(Catalog& catalog, const std::string& name, std::span<const TokenId> tokens,
                 std::span<const Digest> chain, uint64_t* extent) {
  CorpusRecord record;
  record.id = catalog.NextCorpusId();
  record.name = name;
  record.tokens = record.durable_tokens = tokens.size();
  record.block_bytes = 819'200;
  {
    Catalog::Change change;
    change.PutTokens(record.id, tokens, 0);
    change.PutRecord(record, nullptr);
    RETURN_IF_ERROR(catalog.Commit(change, /*sync=*/false).status());
  }
  for (size_t first = 0; first < chain.size(); first += 8192) {
    const CorpusRecord old = record;
    Catalog::Change change;
    for (size_t i = first; i < std::min(chain.size(), first + 8192); ++i) {
      if (i % kPublishBlocks == 0) *extent += 1;
      const uint64_t number = (uint64_t{1} << 32) + *extent * kPublishBlocks * 201;
      change.PutExtent(number, uint64_t{kPublishBlocks} * 201 * 4096);
      ChainEntry entry;
      entry.location = {number, static_cast<uint32_t>(i % kPublishBlocks * 201)};
      entry.place = {chain.front(), i};
      entry.payload_bytes = record.block_bytes;
      entry.tokens =
          static_cast<uint32_t>(std::min<size_t>(kBlockTokens, tokens.size() - i * kBlockTokens));
      entry.sections = 30;
      entry.references = 1;
      change.PutEntry(chain[i], entry);
      change.PutBlockTokens(chain[i], tokens.subspan(i * kBlockTokens, entry.tokens));
      record.chain.push_back(chain[i]);
    }
    change.PutRecord(record, &old);
    RETURN_IF_ERROR(catalog.Commit(change, first + 8192 >= chain.size()).status());
  }
  return OkStatus();
}

struct Measured {
  std::vector<double> open_ms, cold_ms, warm_ms, hash_ms;
  double index_bytes_per_block = 0;
};

Status MeasureRound(const std::string& folder, std::span<const TokenId> tokens,
                    std::span<const Digest> chain, uint64_t blocks, Measured* measured) {
  DropPageCache(folder);
  malloc_trim(0);
  const uint64_t before = ResidentBytes();
  auto start = BenchClock::now();
  BlockStoreOptions options;
  options.data_dir = folder;
  ASSIGN_OR_RETURN(const auto store, BlockStore::Open(options));
  ASSIGN_OR_RETURN(const size_t hit, store->LongestPrefix(chain.first(1), tokens));
  measured->open_ms.push_back(SecondsSince(start) * 1e3);
  malloc_trim(0);
  measured->index_bytes_per_block =
      static_cast<double>(ResidentBytes() - std::min(before, ResidentBytes())) /
      static_cast<double>(blocks);
  start = BenchClock::now();
  ASSIGN_OR_RETURN(const size_t cold, store->LongestPrefix(chain, tokens));
  measured->cold_ms.push_back(SecondsSince(start) * 1e3);
  start = BenchClock::now();
  ASSIGN_OR_RETURN(const size_t warm, store->LongestPrefix(chain, tokens));
  measured->warm_ms.push_back(SecondsSince(start) * 1e3);
  if (hit != 1 || cold != chain.size() || warm != chain.size()) {
    return InternalError("the chain was not found whole: " + std::to_string(cold) + " of " +
                         std::to_string(chain.size()) + " blocks");
  }
  start = BenchClock::now();
  const auto again = BuildChain({}, tokens, kBlockTokens);
  measured->hash_ms.push_back(SecondsSince(start) * 1e3);
  return again.back() == chain.back() ? OkStatus() : InternalError("the chain differs");
}

json AsJson(const std::vector<double>& values) {
  const Spread spread = SpreadOf(values);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

void Print(const json& report, const std::string& format) {
  if (format == "json") {
    std::cout << report.dump(1) << "\n";
    return;
  }
  std::printf("%lu blocks in the catalogue, a chain of %lu tokens; %u rounds, median (min..max)\n",
              report["blocks"].get<uint64_t>(), report["chain_tokens"].get<uint64_t>(),
              report["rounds"].get<unsigned>());
  const std::pair<const char*, const char*> rows[] = {{"open_ms", "open to first hit, cold"},
                                                      {"cold_ms", "longest prefix, first time"},
                                                      {"warm_ms", "longest prefix, again"},
                                                      {"hash_ms", "ceiling: SHA-256 of the chain"}};
  for (const auto& [key, text] : rows) {
    std::printf("%-32s %8.1f ms (%.1f..%.1f)\n", text, report[key]["median"].get<double>(),
                report[key]["min"].get<double>(), report[key]["max"].get<double>());
  }
  std::printf("%-32s %8.0f bytes a block\n", "memory of the open catalogue",
              report["index_bytes_per_block"].get<double>());
}

Status BenchIn(const std::string& folder, const Arguments& a) {
  const auto tokens = RandomTokens(1, a.chain_tokens);
  const auto chain = BuildChain({}, tokens, kBlockTokens);
  uint64_t extent = 0;
  uint64_t blocks = 0;
  {
    ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(folder + "/catalog"));
    for (uint64_t corpus = 0; blocks < a.blocks; ++corpus) {
      const auto other = corpus == 0 ? tokens : RandomTokens(corpus + 1, a.chain_tokens);
      const auto other_chain = corpus == 0 ? chain : BuildChain({}, other, kBlockTokens);
      RETURN_IF_ERROR(
          AddCorpus(*catalog, "corpus" + std::to_string(corpus), other, other_chain, &extent));
      blocks += other_chain.size();
    }
  }
  Measured measured;
  for (uint32_t round = 0; round < a.rounds; ++round) {
    RETURN_IF_ERROR(MeasureRound(folder, tokens, chain, blocks, &measured));
  }
  Print({{"command", "corpus-bench chain"},
         {"blocks", blocks},
         {"chain_tokens", a.chain_tokens},
         {"rounds", a.rounds},
         {"open_ms", AsJson(measured.open_ms)},
         {"cold_ms", AsJson(measured.cold_ms)},
         {"warm_ms", AsJson(measured.warm_ms)},
         {"hash_ms", AsJson(measured.hash_ms)},
         {"index_bytes_per_block", measured.index_bytes_per_block}},
        a.format);
  return OkStatus();
}

Status Bench(Arguments a) {
  if (a.smoke) {
    a.blocks = 2000;
    a.chain_tokens = 130'000;
    a.rounds = 1;
  }
  std::string folder = a.folder + "/corpus-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return IoError("cannot make a folder in " + a.folder);
  const Status status = BenchIn(folder, a);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return status;
}

}  // namespace

void AddChainCommand(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("chain", "a catalogue of a million blocks: open, look up");
  command->add_option("--folder", a->folder, "where the catalogue is made (the temporary folder)");
  command->add_option("--blocks", a->blocks, "in the catalogue");
  command->add_option("--tokens", a->chain_tokens, "of the chain that is looked up");
  command->add_option("--rounds", a->rounds, "the median is reported")->check(CLI::Range(1, 100));
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
