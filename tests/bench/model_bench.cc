// corpus-bench prefill and attention-decode: rates of a whole model, beside the machine's ceilings.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/prefill/prefill_runner.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/shared_sequences.h"
#include "tests/eval/model_session.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct Arguments {
  ModelSessionOptions session;
  std::string ids_path, text_path = "/usr/share/common-licenses/GPL-3";
  std::string kv_format = "bf16";
  std::vector<uint32_t> prefill = {512, 2048};
  std::vector<uint32_t> depths = {0, 2048};
  uint32_t decode_tokens = 64;
  uint32_t chunk = 0;  // the last tokens before a depth that are timed
  uint32_t together = 1;
  uint32_t repeats = 3;
  bool smoke = false;
  std::string format = "table";
};

// Real text's ids: from a file of ids, or by tokenizing a text, repeated to reach the wanted length
// only if the text is shorter (said in the report).
Result<std::vector<TokenId>> LoadIds(const ModelSession& session, const Arguments& a, size_t wanted,
                                     bool* repeated) {
  std::vector<TokenId> ids;
  if (!a.ids_path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(a.ids_path));
    std::istringstream lines(text);
    for (TokenId id = 0; lines >> id;) ids.push_back(id);
  } else {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(a.text_path));
    session.tokenizer().Encode(text, /*parse_special=*/false, &ids);
  }
  if (ids.empty()) return InvalidArgumentError("no token ids to run");
  const size_t length = ids.size();
  *repeated = length < wanted;
  while (ids.size() < wanted) ids.push_back(ids[ids.size() - length]);
  return ids;
}

// Multiply-adds of one token's weights, and of attention over one position of history.
struct Work {
  double weight_macs = 0, attention_macs = 0, weight_bytes = 0, kv_bytes = 0;
};

Work WorkOf(const ModelSession& session, const KvFormat& format) {
  const ModelConfig& c = session.model().config();
  Work work;
  for (const TensorSize& tensor : session.source().TensorSizes()) {
    if (!tensor.matrix) continue;
    if (!tensor.embedding) work.weight_macs += static_cast<double>(tensor.elements);
    work.weight_bytes += static_cast<double>(tensor.bytes);
  }
  work.attention_macs = 2.0 * c.layers * c.q_heads * c.head_dim;
  work.kv_bytes = static_cast<double>(format.BlockBytes()) / format.block_tokens;
  return work;
}

Result<double> PrefillSeconds(ModelSession& session, std::span<const TokenId> ids,
                              const std::string& kv_format, std::unique_ptr<KvSequence>* kept) {
  ASSIGN_OR_RETURN(auto kv, session.NewSequence(kv_format));
  const auto start = BenchClock::now();
  RETURN_IF_ERROR(session.Run(ids, *kv, nullptr));
  const double seconds = SecondsSince(start);
  if (kept != nullptr) *kept = std::move(kv);
  return seconds;
}

json Measured(const std::string& name, const std::vector<double>& tokens_per_s) {
  const Spread spread = SpreadOf(tokens_per_s);
  return {{"name", name},
          {"tokens_per_s", spread.median},
          {"min", spread.min},
          {"max", spread.max},
          {"runs", tokens_per_s.size()}};
}

// What a token of a prefill multiplies, beside the peak.
void AddShare(double macs, double float_gmacs, json* result) {
  const double gmacs = (*result)["tokens_per_s"].get<double>() * macs / 1e9;
  (*result)["gmacs_per_s"] = gmacs;
  (*result)["share_of_float_peak"] = gmacs / float_gmacs;
}

// The last `tokens` before a depth.
json Chunk(uint32_t tokens, uint32_t depth, double seconds, const Work& work, double float_gmacs) {
  json result = Measured("pp" + std::to_string(tokens) + "@" + std::to_string(depth - tokens),
                         {tokens / seconds});
  AddShare(work.weight_macs + work.attention_macs * (depth - tokens / 2.0), float_gmacs, &result);
  return result;
}

Status BenchPrefill(ModelSession& session, const Arguments& a, std::span<const TokenId> ids,
                    const Work& work, double float_gmacs, json* results) {
  for (const uint32_t tokens : a.prefill) {
    const uint32_t count = std::min(tokens, session.model().config().context_tokens);
    if (count == 0) continue;
    std::vector<double> rates;
    for (uint32_t r = 0; r < a.repeats; ++r) {
      ASSIGN_OR_RETURN(const double seconds,
                       PrefillSeconds(session, ids.first(count), a.kv_format, nullptr));
      rates.push_back(count / seconds);
    }
    json result = Measured("pp" + std::to_string(tokens), rates);
    AddShare(work.weight_macs + work.attention_macs * count / 2, float_gmacs, &result);
    results->push_back(result);
  }
  return OkStatus();
}

Status BenchDecode(ModelSession& session, const Arguments& a, std::span<const TokenId> ids,
                   const Work& work, const CpuCeilings& ceilings, json* results) {
  const double read_gbytes = ceilings.read_gbytes, float_gmacs = ceilings.fp32_gmacs;
  for (const uint32_t depth : a.depths) {
    const uint32_t start =
        std::min(depth, session.model().config().context_tokens - a.decode_tokens * a.repeats);
    // As in the daemon: the corpus in its format, a question's own tokens in bf16 behind it.
    ASSIGN_OR_RETURN(const KvLayout layout, session.Layout(a.kv_format));
    const auto kv = std::make_unique<KvSequence>(layout);
    std::unique_ptr<KvSequence> corpus;
    if (start > 0) {
      const uint32_t chunk = std::min(a.chunk, start);
      ASSIGN_OR_RETURN(corpus, session.NewSequence(a.kv_format));
      RETURN_IF_ERROR(session.Run(ids.first(start - chunk), *corpus, nullptr));
      const auto begin = BenchClock::now();
      RETURN_IF_ERROR(session.Run(ids.subspan(start - chunk, chunk), *corpus, nullptr));
      if (chunk > 0) {
        results->push_back(Chunk(chunk, start, SecondsSince(begin), work, float_gmacs));
      }
      for (const auto& block : corpus->OwnBlocks()) kv->AddShared(block.bytes.data(), block.tokens);
    }
    std::vector<double> rates;
    for (uint32_t r = 0; r < a.repeats; ++r) {
      const auto begin = BenchClock::now();
      for (uint32_t t = 0; t < a.decode_tokens; ++t) {
        const TokenId id = ids[kv->tokens() % ids.size()];
        RETURN_IF_ERROR(session.Run({&id, 1}, *kv, [](size_t, std::span<const float>) {}));
      }
      rates.push_back(a.decode_tokens / SecondsSince(begin));
    }
    json result =
        Measured("tg" + std::to_string(a.decode_tokens) + "@" + std::to_string(depth), rates);
    result["depth"] = start;
    const double bytes =
        work.weight_bytes + work.kv_bytes * (start + a.decode_tokens * a.repeats / 2.0);
    const double gbytes = result["tokens_per_s"].get<double>() * bytes / 1e9;
    result["read_gb_per_s"] = gbytes;
    result["share_of_read_bandwidth"] = gbytes / read_gbytes;
    results->push_back(result);
  }
  return OkStatus();
}

// Seconds of `steps` passes that give each of `sequences` one token and its logits.
Result<double> TogetherSeconds(ModelSession& session, std::span<KvSequence* const> sequences,
                               std::span<const TokenId> ids, uint32_t steps) {
  const auto rows = static_cast<uint32_t>(sequences.size());
  const ModelConfig& config = session.model().config();
  ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(session.backend(), config, rows));
  ASSIGN_OR_RETURN(const auto logits, session.backend().AllocateShared(
                                          uint64_t{config.vocabulary} * rows * 4, "logits"));
  const auto begin = BenchClock::now();
  for (uint32_t step = 0; step < steps; ++step) {
    std::vector<TokenId> tokens;
    for (uint32_t r = 0; r < rows; ++r) tokens.push_back(ids[(step * rows + r) % ids.size()]);
    RETURN_IF_ERROR(session.model().ForwardEach(tokens, sequences, *scratch, [] { return true; }));
    RETURN_IF_ERROR(session.model().Logits(*scratch, 0, logits->Matrix(rows, config.vocabulary)));
  }
  return SecondsSince(begin);
}

// Questions on one corpus that decode together, beside one alone, in turn.
Status BenchTogether(ModelSession& session, const Arguments& a, std::span<const TokenId> ids,
                     json* results) {
  ASSIGN_OR_RETURN(const KvLayout layout, session.Layout(a.kv_format));
  for (const uint32_t depth : a.depths) {
    std::unique_ptr<KvSequence> corpus;
    const uint32_t start = std::min(depth, session.model().config().context_tokens - 512);
    if (start == 0) continue;
    ASSIGN_OR_RETURN(const double seconds,
                     PrefillSeconds(session, ids.first(start), a.kv_format, &corpus));
    (void)seconds;
    const auto sequences = SharedSequences(layout, *corpus, a.together);
    std::vector<KvSequence*> pointers;
    for (const auto& sequence : sequences) pointers.push_back(sequence.get());
    std::vector<double> one, all;
    for (uint32_t r = 0; r < a.repeats; ++r) {
      ASSIGN_OR_RETURN(const double alone, TogetherSeconds(session, std::span(pointers).first(1),
                                                           ids, a.decode_tokens));
      ASSIGN_OR_RETURN(const double both, TogetherSeconds(session, pointers, ids, a.decode_tokens));
      one.push_back(a.decode_tokens / alone);
      all.push_back(double{1} * a.decode_tokens * a.together / both);
    }
    json result = Measured(std::to_string(a.together) + " at once@" + std::to_string(depth), all);
    result["alone_tokens_per_s"] = SpreadOf(one).median;
    result["times_one"] = SpreadOf(all).median / SpreadOf(one).median;
    results->push_back(result);
  }
  return OkStatus();
}

void Print(const json& report, const std::string& format) {
  if (format == "json") {
    std::cout << report.dump() << "\n";
    return;
  }
  std::printf("%s, %u threads, KV %s; ceilings of this run: %.1f GMAC/s float32, %.1f GB/s read\n",
              report["backend"].get<std::string>().c_str(), report["threads"].get<unsigned>(),
              report["kv_format"].get<std::string>().c_str(),
              report["float_gmacs_per_s"].get<double>(), report["read_gb_per_s"].get<double>());
  for (const json& r : report["results"]) {
    if (r.contains("times_one")) {
      std::printf("%-16s %5.1f tokens/s, one alone %.1f: %.1f times\n",
                  r["name"].get<std::string>().c_str(), r["tokens_per_s"].get<double>(),
                  r["alone_tokens_per_s"].get<double>(), r["times_one"].get<double>());
      continue;
    }
    const bool prefill = r.contains("share_of_float_peak");
    std::printf("%-12s %9.1f tokens/s (%.1f..%.1f)  %3.0f %% of %s\n",
                r["name"].get<std::string>().c_str(), r["tokens_per_s"].get<double>(),
                r["min"].get<double>(), r["max"].get<double>(),
                100 * r[prefill ? "share_of_float_peak" : "share_of_read_bandwidth"].get<double>(),
                prefill ? "the float32 peak" : "the read bandwidth");
  }
}

Status Bench(Arguments a, bool prefill, bool decode) {
  if (a.smoke) {
    a.prefill = {64};
    a.depths = {0};
    a.decode_tokens = 4;
    a.repeats = 1;
  }
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  ASSIGN_OR_RETURN(const KvFormat format, session->model().Format(a.kv_format));
  size_t wanted = 1;
  for (const uint32_t n : a.prefill) wanted = std::max<size_t>(wanted, n);
  for (const uint32_t n : a.depths) wanted = std::max<size_t>(wanted, n);
  bool repeated = false;
  ASSIGN_OR_RETURN(const auto ids, LoadIds(*session, a, wanted, &repeated));
  const unsigned threads =
      a.session.threads != 0 ? a.session.threads : std::thread::hardware_concurrency();
  const CpuCeilings ceilings = MeasureCpuCeilings(threads, /*processor_time=*/false);
  const Work work = WorkOf(*session, format);
  json results = json::array();
  {
    ASSIGN_OR_RETURN(const double warm_up,
                     PrefillSeconds(*session, std::span(ids).first(1), a.kv_format, nullptr));
    (void)warm_up;
  }
  if (prefill) RETURN_IF_ERROR(BenchPrefill(*session, a, ids, work, ceilings.fp32_gmacs, &results));
  if (decode) RETURN_IF_ERROR(BenchDecode(*session, a, ids, work, ceilings, &results));
  if (decode && a.together > 1) RETURN_IF_ERROR(BenchTogether(*session, a, ids, &results));
  Print({{"backend", session->backend_name()},
         {"threads", threads},
         {"kv_format", a.kv_format},
         {"text_repeated", repeated},
         {"float_gmacs_per_s", ceilings.fp32_gmacs},
         {"read_gb_per_s", ceilings.read_gbytes},
         {"results", results}},
        a.format);
  return OkStatus();
}

void AddOptions(CLI::App* command, Arguments* a) {
  command->add_option("--model", a->session.model_path, "GGUF file")->required();
  command->add_option("--ids", a->ids_path, "token ids of real text, one a line");
  command->add_option("--text", a->text_path, "or a text (the GPL)");
  command->add_option("--kv-format", a->kv_format, "bf16 (default), int8, cq8, cq4, cq4k3v, ...");
  command->add_option("--calibration-dir", a->session.calibration_dir,
                      "where calibrations of cq formats are kept");
  command
      ->add_option("--weights", a->session.weights,
                   "as what wider matrices are kept: auto (as they are), bf16, int8, int4")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "int4"}));
  command->add_option("--device", a->session.device, "cpu (default), auto, cuda:N");
  command->add_option("--isa", a->session.isa, "auto, avx2, avx512, amx");
  command->add_option("--threads", a->session.threads, "0: all");
  command->add_option("--tokens", a->prefill, "prefill lengths")->delimiter(',');
  command->add_option("--decode-depths", a->depths, "tokens before the decoded ones")
      ->delimiter(',');
  command->add_option("--chunk", a->chunk, "tokens before each depth to time the prefill of");
  command->add_option("--decode-tokens", a->decode_tokens, "decoded at each depth");
  command->add_option("--together", a->together, "questions on one corpus that decode at once")
      ->check(CLI::Range(1, 16));
  command->add_option("--repeats", a->repeats, "the median is reported")->check(CLI::Range(1, 100));
  AddCommonOptions(command, &a->smoke, &a->format);
}

}  // namespace

void AddModelCommands(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* prefill = app.add_subcommand("prefill", "prompt and decode rates of the whole model");
  AddOptions(prefill, a.get());
  prefill->callback([a, status] { *status = Bench(*a, /*prefill=*/true, !a->depths.empty()); });
  auto* decode = app.add_subcommand("attention-decode", "decode rate by depth");
  AddOptions(decode, a.get());
  decode->callback([a, status] { *status = Bench(*a, /*prefill=*/false, /*decode=*/true); });
}

}  // namespace corpusd
