// corpus-bench index-scan: one pass of a question's queries over the index of a corpus's keys,
// beside the bandwidth of reading memory in the same run; the words of the same question; what a
// block costs to add.
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/retrieval/corpus_index.h"
#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/index_tile_codec.h"
#include "kernels/reference/kv_tile.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct Arguments {
  uint64_t tokens = 1'000'000;
  std::vector<uint32_t> rows = {1, 4, 16};
  uint32_t kv_heads = 1;
  unsigned threads = 0;
  std::string isa = "auto";
  uint32_t rounds = 15;
  bool processor_time = false;
  bool smoke = false;
  std::string format = "table";
};

// SmolLM2-135M's KV heads have 64 numbers; two query heads of each are asked.
constexpr HeadShape kShape{.layers = 30, .q_heads = 9, .kv_heads = 3, .head_dim = 64};

IndexLayout Layout(uint32_t kv_heads) {
  RopeConfig rope;
  rope.dimensions = kShape.head_dim;
  std::vector<RetrievalHead> heads;
  for (uint32_t i = 0; i < kv_heads; ++i) {
    heads.push_back({18 - i, 6});
    heads.push_back({18 - i, 7});
  }
  return {*RetrievalHeads::Create(kShape, std::move(heads)), rope};
}

std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

Status FillKeys(RetrievalKeys* keys, const IndexLayout& layout, uint64_t tokens) {
  constexpr uint32_t kKinds = 8;  // of blocks, in turn
  std::vector<std::vector<std::byte>> kinds(kKinds);
  for (uint32_t i = 0; i < kKinds; ++i) {
    kinds[i].resize(layout.block_bytes());
    for (uint32_t source = 0; source < layout.heads().sources().size(); ++source) {
      const auto values = RandomFloats(size_t{kBlockTokens} * kShape.head_dim, i * 2 + source);
      EncodeIndexTile(kinds[i].data() + source * layout.tile_bytes(), values.data(), kBlockTokens,
                      kShape.head_dim);
    }
  }
  for (uint64_t block = 0; block < tokens / kBlockTokens; ++block) {
    RETURN_IF_ERROR(keys->AppendCoded(kinds[block % kKinds], kBlockTokens));
  }
  return OkStatus();
}

// Words drawn as a language draws them: the k-th of 50,000 about 1/k as often as the first.
std::string RandomText(std::mt19937& random) {
  std::uniform_real_distribution<double> uniform(0, std::log(50'000.0));
  std::string text;
  for (int i = 0; i < 100; ++i) {  // 128 tokens and the margin
    text += std::string(1, static_cast<char>('a' + random() % 26));
    auto rank = static_cast<uint32_t>(std::exp(uniform(random)));
    for (; rank > 0; rank /= 26) text += static_cast<char>('a' + rank % 26);
    text += ' ';
  }
  return text;
}

template <typename Work>
json Milliseconds(const Arguments& a, const Work& work) {
  std::vector<double> times;
  for (uint32_t round = 0; round < a.rounds + 1; ++round) {
    const double start = BenchSeconds(a.processor_time);
    work();
    if (round > 0) times.push_back((BenchSeconds(a.processor_time) - start) * 1e3);
  }
  const Spread spread = SpreadOf(times);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

json BenchScan(const Arguments& a, const RetrievalKeys& keys, const IndexLayout& layout,
               const IndexScanner& scanner, double read_gbytes) {
  json rows = json::array();
  const size_t heads = layout.heads().heads().size();
  const auto bytes = static_cast<double>(keys.blocks() * layout.block_bytes());
  for (const uint32_t count : a.rows) {
    const auto q = RandomFloats(count * heads * kShape.head_dim, 99);
    const HeadQueries queries(layout, q, count);
    json row = {{"query_rows", count},
                {"ms", Milliseconds(a, [&] { keys.Scan(queries, 0, scanner); })}};
    row["gbytes_per_s"] = bytes / 1e6 / row["ms"]["median"].get<double>();
    row["of_read_bandwidth"] = row["gbytes_per_s"].get<double>() / read_gbytes;
    rows.push_back(row);
  }
  return rows;
}

// Microseconds of adding a block, of one thread.
Status BenchAdd(const Arguments& a, const IndexLayout& layout, json* report) {
  for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
    const KvFormat format{codec, codec, kShape.layers, kShape.kv_heads, kShape.head_dim};
    std::vector<std::byte> block(format.BlockBytes());
    for (const KeySource& source : layout.heads().sources()) {
      const auto values = RandomFloats(size_t{kBlockTokens} * kShape.head_dim, 5);
      for (uint32_t t = 0; t < kBlockTokens; ++t) {
        WriteKey(block.data() + format.KeyTileOffset(source.layer, source.kv_head), format, t,
                 values.data() + t * kShape.head_dim, &layout.rope());
      }
    }
    RetrievalKeys keys(layout);
    Status status;
    const json ms = Milliseconds(
        a, [&] { status = keys.AppendBlock(format, nullptr, block.data(), kBlockTokens); });
    RETURN_IF_ERROR(status);
    (*report)["add_keys_us"][std::string(KvCodecName(codec))] = ms["median"].get<double>() * 1e3;
  }
  return OkStatus();
}

Status Print(const json& report, const std::string& format) {
  if (format == "json") {
    std::cout << report.dump(1) << "\n";
    return OkStatus();
  }
  std::printf("%lu tokens, %s, %u threads; median of %u passes; memory reads %.1f GB/s\n",
              report["tokens"].get<uint64_t>(), report["isa"].get<std::string>().c_str(),
              report["threads"].get<unsigned>(), report["rounds"].get<unsigned>(),
              report["read_gbytes"].get<double>());
  std::printf("keys: %.1f bytes a token; words: %.1f\n", report["key_bytes"].get<double>(),
              report["word_bytes"].get<double>());
  for (const json& row : report["scan"]) {
    std::printf("%3u query rows x %u heads %8.2f ms (%.2f..%.2f) %6.1f GB/s, %.2f of reading\n",
                row["query_rows"].get<unsigned>(), 2 * report["kv_heads"].get<unsigned>(),
                row["ms"]["median"].get<double>(), row["ms"]["min"].get<double>(),
                row["ms"]["max"].get<double>(), row["gbytes_per_s"].get<double>(),
                row["of_read_bandwidth"].get<double>());
  }
  std::printf("words of a question       %8.2f ms\n", report["words_ms"]["median"].get<double>());
  std::printf("add the words of a block  %8.1f us\n", report["add_words_us"].get<double>());
  for (const auto& [codec, us] : report["add_keys_us"].items()) {
    std::printf("add its keys, %-5s       %8.1f us\n", codec.c_str(), us.get<double>());
  }
  return OkStatus();
}

Status Bench(Arguments a) {
  if (a.processor_time && a.threads != 1) {
    return InvalidArgumentError("--processor-time is of one thread: add --threads 1");
  }
  if (a.smoke) {
    a.tokens = 20'000;
    a.rounds = 1;
  }
  const IndexLayout layout = Layout(a.kv_heads);
  const IndexScanner scanner(a.threads, a.isa);
  RetrievalKeys keys(layout);
  RETURN_IF_ERROR(FillKeys(&keys, layout, a.tokens));
  LexicalIndex words;
  std::mt19937 random(3);
  const double start = BenchSeconds(a.processor_time);
  for (uint64_t block = 0; block < keys.blocks(); ++block) {
    const BlockTerms terms = CountTerms(RandomText(random));
    words.Append(terms.postings, terms.length);
  }
  const double words_seconds = BenchSeconds(a.processor_time) - start;
  const double read_gbytes = MeasureCpuCeilings(scanner.threads(), a.processor_time).read_gbytes;
  const auto tokens = static_cast<double>(keys.blocks() * kBlockTokens);
  json report = {{"command", "corpus-bench index-scan"},
                 {"tokens", keys.blocks() * kBlockTokens},
                 {"kv_heads", a.kv_heads},
                 {"isa", scanner.isa()},
                 {"threads", scanner.threads()},
                 {"rounds", a.rounds},
                 {"read_gbytes", read_gbytes},
                 {"key_bytes", static_cast<double>(keys.bytes()) / tokens},
                 {"word_bytes", static_cast<double>(words.bytes()) / tokens},
                 {"scan", BenchScan(a, keys, layout, scanner, read_gbytes)}};
  report["words_ms"] = Milliseconds(
      a, [&] { words.Score("what is the code of the wax qabc and of wbx", {}, scanner); });
  report["add_words_us"] = words_seconds * 1e6 / static_cast<double>(keys.blocks());
  RETURN_IF_ERROR(BenchAdd(a, layout, &report));
  return Print(report, a.format);
}

}  // namespace

void AddIndexScanCommand(CLI::App& app, Status* status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      app.add_subcommand("index-scan", "a question over the index of a long corpus");
  command->add_option("--tokens", arguments->tokens, "of the corpus")->capture_default_str();
  command->add_option("--rows", arguments->rows, "query rows, one or several numbers")
      ->capture_default_str();
  command->add_option("--kv-heads", arguments->kv_heads, "indexed, two query heads each")
      ->check(CLI::Range(1, 18));
  command->add_option("--threads", arguments->threads, "0: all processors");
  command->add_option("--isa", arguments->isa, "avx2, avx512, avx512vnni, amx, auto");
  command->add_option("--rounds", arguments->rounds, "")->capture_default_str();
  command->add_flag("--processor-time", arguments->processor_time,
                    "of one thread, for a machine that others use");
  AddCommonOptions(command, &arguments->smoke, &arguments->format);
  command->callback([arguments, status] { *status = Bench(*arguments); });
}

}  // namespace corpusd
