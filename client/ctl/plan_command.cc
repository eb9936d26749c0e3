// plan: what a corpus of some paths would take, before it is paid for.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "client/ctl/commands.h"
#include "client/ctl/corpus_plan.h"
#include "client/ctl/cost_text.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/source_gathering.h"
#include "client/ctl/text_sample.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

// Of the sample that --measure prefills: about 4,000 tokens of prose. Where they take less than
// kMeasuredSeconds, as on a GPU, the start of a prefill would count more than its rate: then more.
constexpr size_t kMeasuredBytes = size_t{16} << 10;
constexpr double kMeasuredSeconds = 0.5;
constexpr uint64_t kMeasuredTtlMs = 600'000;

// Reads the documents as an ingest would, and keeps no more than a sample.
class PlanSink : public sources::DocumentSink {
 public:
  bool Begin(std::string_view label) override {
    ++text_.documents;
    text_.label_bytes += label.size();
    return true;
  }
  bool Write(std::string_view text) override {
    sample_.Add(text);
    return true;
  }
  bool End() override { return true; }

  PlanText text() const {
    PlanText text = text_;
    text.text_bytes = sample_.text_bytes();
    return text;
  }
  std::string sample() const { return sample_.Text(); }

 private:
  PlanText text_;
  TextSample sample_;
};

struct PlanAnswers {
  v1::PlanReply plan;
  v1::PlanReply ranks;  // of GPUs, if they were asked for
  v1::ListReply corpora;
  v1::DiskUsageReply usage;
};

ClientResult<PlanAnswers> AskDaemon(CorpusClient& client, const std::string& sample) {
  PlanAnswers answers;
  v1::PlanRequest request;
  request.set_sample(sample);
  auto plan = client.Plan(request);
  if (!plan.ok()) return plan.error();
  answers.plan = *std::move(plan);
  auto corpora = client.List();
  if (!corpora.ok()) return corpora.error();
  answers.corpora = *std::move(corpora);
  auto usage = client.DiskUsage();
  if (!usage.ok()) return usage.error();
  answers.usage = *std::move(usage);
  return answers;
}

// A little of the sample, taken evenly, as documents of the corpus's mean size: short documents and
// the windows of long ones cost more a token than others.
// RETURNS false if the call has failed.
bool WriteLittle(const std::string& sample, const PlanText& text, size_t bytes,
                 IngestWriter& writer) {
  const size_t mean = std::max<size_t>(text.text_bytes / std::max<uint64_t>(text.documents, 1), 1);
  const size_t document = std::min(mean, bytes);
  const size_t documents = std::min(bytes, sample.size()) / document;
  for (size_t i = 0; i < std::max<size_t>(documents, 1); ++i) {
    const size_t at = documents < 2 ? 0 : i * (sample.size() - document) / (documents - 1);
    const bool taken = writer.BeginSource("sample-" + std::to_string(i)) &&
                       writer.Write(std::string_view(sample).substr(at, document)) &&
                       writer.EndSource();
    if (!taken) return false;
  }
  return true;
}

struct MeasuredPrefill {
  PrefillRate rate;
  double seconds = 0;  // of the tokens alone
};

// Prefills so many bytes of the sample as a corpus of its own, and removes it.
ClientResult<MeasuredPrefill> MeasureOnce(CorpusClient& client, const std::string& sample,
                                          const PlanText& text, const std::string& mode,
                                          size_t bytes) {
  const auto start = std::chrono::steady_clock::now();
  v1::IngestBegin begin;
  begin.set_name("plan-" + std::to_string(getpid()));
  begin.set_mode(mode);
  begin.set_priority("low");
  begin.set_ttl_ms(kMeasuredTtlMs);
  client.set_timeout(std::chrono::milliseconds(0));
  auto reply = client.Ingest(
      begin, [&](IngestWriter& writer) { return WriteLittle(sample, text, bytes, writer); });
  if (!reply.ok()) return reply.error();
  auto job = client.WatchJob(reply->job().id(), nullptr);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  auto corpus = client.Show(begin.name());
  (void)client.Remove(begin.name());  // where that fails its ttl does it
  if (!job.ok()) return job.error();
  auto ended = CheckJobEnd(*job);
  if (!ended.ok()) return ended.error();
  if (!corpus.ok()) return corpus.error();
  return MeasuredPrefill{{corpus->prefill_tokens_per_s(), "a sample",
                          std::max(0.0, spent.count() - corpus->prefill_seconds())},
                         corpus->prefill_seconds()};
}

ClientResult<PrefillRate> Measure(CorpusClient& client, const std::string& sample,
                                  const PlanText& text, const std::string& mode) {
  for (size_t bytes = kMeasuredBytes;; bytes *= 8) {
    auto measured = MeasureOnce(client, sample, text, mode, bytes);
    if (!measured.ok()) return measured.error();
    const bool long_enough = !(measured->seconds > 0 && measured->seconds < kMeasuredSeconds);
    if (long_enough || bytes >= sample.size()) return measured->rate;
  }
}

// The same text by several GPUs.
ClientResult<Done> AskForRanks(CorpusClient& client, const Arguments& arguments, uint64_t tokens,
                               PlanAnswers* answers) {
  if (arguments.ranks.empty()) return Done{};
  v1::PlanRequest request;
  for (const uint32_t ranks : arguments.ranks) request.add_ranks(ranks);
  request.set_tokens(arguments.plan_tokens > 0 ? arguments.plan_tokens : tokens);
  request.set_link_bytes_per_s(static_cast<double>(arguments.link_bytes_per_s));
  auto reply = client.Plan(request);
  if (!reply.ok()) return reply.error();
  answers->ranks = *std::move(reply);
  return Done{};
}

Json RanksToJson(const v1::PlanReply& reply) {
  Json all = Json::array();
  for (const v1::PlanRanks& ranks : reply.ranks()) {
    all.push_back({{"ranks", ranks.ranks()},
                   {"seconds", ranks.seconds()},
                   {"waiting_seconds", ranks.waiting_seconds()},
                   {"efficiency", ranks.efficiency()},
                   {"attention_flop_per_s", ranks.attention_flop_per_s()},
                   {"linear_flop_per_s", ranks.linear_flop_per_s()},
                   {"link_bytes_per_s", ranks.link_bytes_per_s()},
                   {"measured_on", ranks.measured_on()}});
  }
  return all;
}

void PrintRanks(const CommandContext& context, const v1::PlanReply& reply) {
  if (reply.ranks_size() == 0) return;
  const v1::PlanRanks& first = reply.ranks(0);
  TablePrinter table({{first.measured_on() + "S", Align::kRight},
                      {"EXACT PREFILL", Align::kRight},
                      {"WAITING", Align::kRight},
                      {"EFFICIENCY", Align::kRight}});
  for (const v1::PlanRanks& ranks : reply.ranks()) {
    table.AddRow({FormatCount(ranks.ranks()), FormatDuration(ranks.seconds()),
                  FormatDuration(ranks.waiting_seconds()),
                  FormatRate(ranks.efficiency() * 100) + " %"});
  }
  table.Print(context.console.out, StyleOf(context));
}

Json FormatsToJson(const CorpusPlan& plan, const PlanAnswers& answers) {
  Json formats = Json::array();
  for (const v1::PlanFormat& format : answers.plan.formats()) {
    const uint64_t bytes = FormatBytesOf(plan, format);
    formats.push_back({{"name", format.name()},
                       {"bytes", bytes},
                       {"keep_all_bytes", KeepAllBytesOf(plan, format)},
                       {"fits",
                        {{"device", FitIn(answers.usage, "device", bytes)},
                         {"host", FitIn(answers.usage, "host", bytes)},
                         {"disk", FitIn(answers.usage, "disk", bytes)}}}});
  }
  return formats;
}

Json PlanToJson(const CorpusPlan& plan, const PlanAnswers& answers,
                const sources::SkipLog& skipped) {
  Json prefill = nullptr;
  if (plan.rate) {
    prefill = {{"seconds", plan.prefill_seconds},
               {"tokens_per_s", plan.rate->tokens_per_s},
               {"fixed_seconds", plan.rate->fixed_seconds},
               {"measured_on", plan.rate->corpus}};
  }
  return {{"documents", plan.text.documents},
          {"text_bytes", plan.text.text_bytes},
          {"tokens", plan.tokens},
          {"sample", {{"bytes", plan.text.sample_bytes}, {"tokens", answers.plan.sample_tokens()}}},
          {"mode", plan.mode},
          {"model", {{"name", answers.plan.model_name()}, {"digest", answers.plan.model_digest()}}},
          {"exact_tokens_max", answers.plan.exact_tokens_max()},
          {"kv_format", answers.plan.default_format()},
          {"formats", FormatsToJson(plan, answers)},
          {"ranks", RanksToJson(answers.ranks)},
          {"prefill", std::move(prefill)},
          {"cold_tokens", plan.cold_tokens},
          {"break_even_questions",
           plan.break_even_questions == 0 ? Json(nullptr) : Json(plan.break_even_questions)},
          {"cost", CostToJson(CostOfPlan(plan, answers.plan))},
          {"skipped", SkippedToJson(skipped)}};
}

// Of a model whose layers do not all see everything: beside what keeping all of them would take.
void PrintFormats(const CommandContext& context, const CorpusPlan& plan,
                  const PlanAnswers& answers) {
  const v1::PlanReply& reply = answers.plan;
  const bool parts = reply.formats_size() > 0 && reply.formats(0).parts_size() > 0;
  std::vector<Column> columns = {{"FORMAT"}, {"SIZE", Align::kRight}};
  if (parts) columns.push_back({"ALL LAYERS KEPT", Align::kRight});
  for (const char* tier : {"DEVICE", "HOST", "DISK"}) columns.push_back({tier});
  TablePrinter table(columns);
  for (const v1::PlanFormat& format : reply.formats()) {
    const uint64_t bytes = FormatBytesOf(plan, format);
    const bool usual = format.name() == reply.default_format();
    std::vector<std::string> cells = {format.name() + (usual ? " (default)" : ""),
                                      FormatBytes(bytes)};
    if (parts) cells.push_back(FormatBytes(KeepAllBytesOf(plan, format)));
    for (const char* tier : {"device", "host", "disk"}) {
      cells.push_back(FitIn(answers.usage, tier, bytes));
    }
    table.AddRow(std::move(cells));
  }
  table.Print(context.console.out, StyleOf(context));
}

void PrintPlan(const CommandContext& context, const CorpusPlan& plan, const PlanAnswers& answers) {
  const v1::PlanReply& reply = answers.plan;
  const bool whole = plan.text.sample_bytes == plan.text.text_bytes;
  Fields fields = {
      {"documents",
       FormatCount(plan.text.documents) + ", " + FormatBytes(plan.text.text_bytes) + " of text"},
      {"tokens", "about " + FormatCount(plan.tokens) + " (" +
                     (whole ? "tokenized by the daemon"
                            : "from a sample of " + FormatBytes(plan.text.sample_bytes)) +
                     ")"},
      {"model", reply.model_name()},
      {"mode", plan.mode + " (up to " + FormatCount(reply.exact_tokens_max()) +
                   " tokens can be attended to exactly)"}};
  if (plan.rate) {
    fields.emplace_back("prefill", "about " + FormatDuration(plan.prefill_seconds) + " at " +
                                       FormatRate(plan.rate->tokens_per_s) +
                                       " tok/s, measured on " + plan.rate->corpus);
  } else {
    fields.emplace_back("prefill", "not known: nothing was prefilled here yet; --measure does");
  }
  if (plan.break_even_questions > 0) {
    fields.emplace_back("pays off", "from question " + FormatCount(plan.break_even_questions) +
                                        " on, against prefilling " + FormatCount(plan.cold_tokens) +
                                        " tokens for each");
  }
  AddCostFields(CostOfPlan(plan, reply), &fields);
  PrintFields(context.console.out, fields, StyleOf(context));
  context.console.out << '\n';
  PrintFormats(context, plan, answers);
  if (answers.ranks.ranks_size() > 0) context.console.out << '\n';
  PrintRanks(context, answers.ranks);
}

ClientResult<Done> CheckModel(const Arguments& arguments, const v1::PlanReply& reply) {
  if (arguments.model.empty() || arguments.model == reply.model_name() ||
      reply.model_digest().starts_with(arguments.model)) {
    return Done{};
  }
  return UsageError("this daemon serves model " + Quoted(reply.model_name()) + ", not " +
                    Quoted(arguments.model));
}

// Of no text that is here.
int PlanOnPaper(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  PlanAnswers answers;
  auto ranks = AskForRanks(**client, arguments, arguments.plan_tokens, &answers);
  if (!ranks.ok()) return Fail(context, ranks.error());
  if (IsStructured(arguments.output)) {
    PrintStructured(context.console.out, arguments.output,
                    {{"tokens", arguments.plan_tokens}, {"ranks", RanksToJson(answers.ranks)}});
  } else if (arguments.output == OutputMode::kName) {
    context.console.out << arguments.plan_tokens << '\n';
  } else {
    PrintRanks(context, answers.ranks);
  }
  return kExitOk;
}

}  // namespace

int RunPlan(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  if (arguments.paths.empty() && !arguments.read_stdin) return PlanOnPaper(context);
  auto gathered = GatherSources(context, arguments.paths);
  if (!gathered.ok()) return Fail(context, gathered.error());
  PlanSink sink;
  sources::SkipLog skipped = gathered->list.skipped;
  sources::SourceReader reader(ReadOptionsOf(context), sink, skipped);
  auto read = ReadAll(context, *gathered, reader);
  if (!read.ok()) return Fail(context, read.error());
  NoteSkipped(context, skipped);
  PlanText text = sink.text();
  if (text.documents == 0) {
    return Fail(context, NothingToDo("there is no text to plan for: " + skipped.Describe()));
  }
  const std::string sample = sink.sample();
  text.sample_bytes = sample.size();

  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto answers = AskDaemon(**client, sample);
  if (!answers.ok()) return Fail(context, answers.error());
  auto served = CheckModel(arguments, answers->plan);
  if (!served.ok()) return Fail(context, served.error());
  const std::string mode = ReckonPlan(text, answers->plan, arguments.mode, std::nullopt).mode;
  auto rate = MeasuredRate(answers->corpora, mode, answers->plan.model_digest());
  if (arguments.measure) {
    auto measured = Measure(**client, sample, text, mode);
    if (!measured.ok()) return Fail(context, measured.error());
    rate = *measured;
  }
  const CorpusPlan plan = ReckonPlan(text, answers->plan, arguments.mode, rate);
  auto ranks = AskForRanks(**client, arguments, plan.tokens, &*answers);
  if (!ranks.ok()) return Fail(context, ranks.error());
  if (IsStructured(arguments.output)) {
    PrintStructured(context.console.out, arguments.output, PlanToJson(plan, *answers, skipped));
  } else if (arguments.output == OutputMode::kName) {
    context.console.out << plan.tokens << '\n';
  } else {
    PrintPlan(context, plan, *answers);
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
