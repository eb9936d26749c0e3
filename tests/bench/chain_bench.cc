// corpus-bench chain: a large catalogue: opening it, finding a long prefix in it, the memory of its
// index; beside the rate of SHA-256, which no lookup of a new chain can beat. Then a corpus of very
// many documents: finding its blocks wherever they stand, and publishing into it, beside publishing
// the same into a small one.
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
#include "store/corpus_chain.h"
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
  uint64_t documents = 100'000;
  uint64_t document_blocks = 78'000;  // of one block each; what is more has no tokens
  uint64_t publishes = 2'000;
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

// A corpus as Publish leaves it after these blocks, but for the payload, which no lookup reads.
Status AddCorpus(Catalog& catalog, CorpusRecord record, std::span<const TokenId> tokens,
                 std::span<const Digest> chain, uint64_t* extent) {
  const CorpusChain layout(record, kBlockTokens);
  record.id = catalog.NextCorpusId();
  record.durable_tokens = layout.TokensOfBlocks(chain.size());
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
      const BlockSpan span = layout.block(i);
      entry.tokens = span.tokens;
      entry.sections = 30;
      entry.references = 1;
      change.PutEntry(chain[i], entry);
      change.PutBlockTokens(chain[i], tokens.subspan(span.first_token, span.tokens));
      record.chain.push_back(chain[i]);
    }
    change.PutRecord(record, &old);
    RETURN_IF_ERROR(catalog.Commit(change, first + 8192 >= chain.size()).status());
  }
  return OkStatus();
}

CorpusRecord NewRecord(const std::string& name, uint64_t tokens) {
  CorpusRecord record;
  record.name = name;
  record.tokens = tokens;
  record.block_bytes = 819'200;
  return record;
}

// A preamble and documents of one block, and after them some without tokens.
CorpusRecord NewSegmented(const Arguments& a, uint64_t blocks) {
  CorpusRecord record = NewRecord("documents", (blocks + 1) * kBlockTokens);
  record.segments = {8 * kBlockTokens, kBlockTokens};
  for (uint64_t i = 0; i < std::max(a.documents, blocks); ++i) {
    record.sources.push_back({"a/folder/of/documents/" + std::to_string(i) + ".txt",
                              (1 + std::min(i, blocks)) * kBlockTokens,
                              i < blocks ? kBlockTokens : 0, 4 * kBlockTokens,
                              std::string(64, 'a')});
  }
  return record;
}

struct Growing {
  CorpusRecord record;
  std::vector<TokenId> tokens;
  std::vector<Digest> chain;
  std::vector<double> publish_ms;

  // Publishes the next blocks, of a page each: what is measured is not the disk's bandwidth.
  Status Publish(BlockStore& store) {
    static const std::vector<std::byte> kPayload(4096);
    const CorpusChain layout(record, kBlockTokens);
    std::vector<BlockWrite> writes;
    const size_t first = record.chain.size();
    for (size_t i = first; i < std::min<size_t>(first + 8, chain.size()); ++i) {
      const BlockSpan span = layout.block(i);
      const auto begin = tokens.begin() + static_cast<ptrdiff_t>(span.first_token);
      writes.push_back({chain[i], {begin, begin + span.tokens}, kPayload, 1});
    }
    const auto start = BenchClock::now();
    ASSIGN_OR_RETURN(record, store.Publish(record, writes));
    publish_ms.push_back(SecondsSince(start) * 1e3);
    return OkStatus();
  }
};

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

// The median of the first tenth and of the last: what grows with the chain shows between them.
json Growth(const std::vector<double>& values) {
  const size_t part = std::max<size_t>(values.size() / 10, 1);
  json both = AsJson(values);
  both["first_tenth"] =
      SpreadOf({values.begin(), values.begin() + static_cast<ptrdiff_t>(part)}).median;
  both["last_tenth"] = SpreadOf({values.end() - static_cast<ptrdiff_t>(part), values.end()}).median;
  return both;
}

Status MeasurePublishes(const std::string& folder, const Arguments& a, uint64_t* extent,
                        json* report) {
  const uint64_t blocks = a.document_blocks + 8 * a.publishes;
  Growing large, small;
  large.record = NewSegmented(a, blocks);
  large.tokens = RandomTokens(1001, large.record.tokens);
  large.chain = CorpusChain(large.record, kBlockTokens).Digests({}, large.tokens);
  {
    ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(folder + "/catalog"));
    RETURN_IF_ERROR(AddCorpus(*catalog, large.record, large.tokens,
                              std::span(large.chain).first(1 + a.document_blocks), extent));
  }
  BlockStoreOptions options;
  options.data_dir = folder;
  ASSIGN_OR_RETURN(const auto store, BlockStore::Open(options));
  ASSIGN_OR_RETURN(large.record, store->GetCorpus("documents"));
  small.tokens = RandomTokens(1002, 8 * a.publishes * kBlockTokens);
  small.chain = BuildChain({}, small.tokens, kBlockTokens);
  ASSIGN_OR_RETURN(small.record,
                   store->CreateCorpus(NewRecord("small", small.tokens.size()), small.tokens));
  const CorpusChain layout(large.record, kBlockTokens);
  std::vector<double> lookup_ms;
  for (uint32_t round = 0; round < a.rounds; ++round) {
    const auto start = BenchClock::now();
    RETURN_IF_ERROR(store->StoredBlocks(layout, large.chain, large.tokens).status());
    lookup_ms.push_back(SecondsSince(start) * 1e3);
  }
  for (uint64_t i = 0; i < a.publishes; ++i) {
    RETURN_IF_ERROR(large.Publish(*store));
    RETURN_IF_ERROR(small.Publish(*store));
  }
  (*report)["documents"] = large.record.sources.size();
  (*report)["document_blocks"] = a.document_blocks;
  (*report)["publishes"] = a.publishes;
  (*report)["stored_blocks_ms"] = AsJson(lookup_ms);
  (*report)["publish_large_ms"] = Growth(large.publish_ms);
  (*report)["publish_small_ms"] = Growth(small.publish_ms);
  return OkStatus();
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
  std::printf("%lu documents, %lu blocks, then %lu publishes of 8 blocks of a page\n",
              report["documents"].get<uint64_t>(), report["document_blocks"].get<uint64_t>(),
              report["publishes"].get<uint64_t>());
  std::printf("%-32s %8.1f ms\n", "which of its blocks are stored",
              report["stored_blocks_ms"]["median"].get<double>());
  for (const char* const which : {"publish_large_ms", "publish_small_ms"}) {
    const json& row = report[which];
    std::printf("%-32s %8.2f ms (%.2f..%.2f), first tenth %.2f, last %.2f\n",
                which == std::string("publish_large_ms") ? "publish into it"
                                                         : "the same into a small corpus",
                row["median"].get<double>(), row["min"].get<double>(), row["max"].get<double>(),
                row["first_tenth"].get<double>(), row["last_tenth"].get<double>());
  }
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
      RETURN_IF_ERROR(AddCorpus(*catalog,
                                NewRecord("corpus" + std::to_string(corpus), other.size()), other,
                                other_chain, &extent));
      blocks += other_chain.size();
    }
  }
  Measured measured;
  for (uint32_t round = 0; round < a.rounds; ++round) {
    RETURN_IF_ERROR(MeasureRound(folder, tokens, chain, blocks, &measured));
  }
  json report = {{"command", "corpus-bench chain"},
                 {"blocks", blocks},
                 {"chain_tokens", a.chain_tokens},
                 {"rounds", a.rounds},
                 {"open_ms", AsJson(measured.open_ms)},
                 {"cold_ms", AsJson(measured.cold_ms)},
                 {"warm_ms", AsJson(measured.warm_ms)},
                 {"hash_ms", AsJson(measured.hash_ms)},
                 {"index_bytes_per_block", measured.index_bytes_per_block}};
  RETURN_IF_ERROR(MeasurePublishes(folder, a, &extent, &report));
  Print(report, a.format);
  return OkStatus();
}

Status Bench(Arguments a) {
  if (a.smoke) {
    a.blocks = 2000;
    a.chain_tokens = 130'000;
    a.rounds = 1;
    a.documents = 500;
    a.document_blocks = 300;
    a.publishes = 10;
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
  command->add_option("--documents", a->documents, "of the corpus that is published into");
  command->add_option("--document-blocks", a->document_blocks, "that it has before");
  command->add_option("--publishes", a->publishes, "of 8 blocks each")
      ->check(CLI::Range(1, 1'000'000));
  command->add_option("--rounds", a->rounds, "the median is reported")->check(CLI::Range(1, 100));
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
