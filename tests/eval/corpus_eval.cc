// corpus-eval: quality, offline, with the engine's own code. See --help of each command.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/streaming_encoder.h"
#include "tests/eval/eval_command.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

Result<std::vector<TokenId>> EncodeFile(const Tokenizer& tokenizer, const std::string& path,
                                        bool parse_special) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<TokenId> ids;
  tokenizer.Encode(text, parse_special, &ids, TextPlace::kStart);
  return ids;
}

Result<std::vector<TokenId>> ReadIds(const std::string& path, uint32_t vocabulary) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::istringstream lines(text);
  std::vector<TokenId> ids;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    char* end = nullptr;
    const unsigned long id = std::strtoul(line.c_str(), &end, 10);
    if (*end != '\0' || id >= vocabulary) {
      return InvalidArgumentError(path + ": '" + line + "' is not a token id below " +
                                  std::to_string(vocabulary));
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  if (ids.empty()) return InvalidArgumentError(path + " holds no token id");
  return ids;
}

}  // namespace

Status TokenizeCommand(const EvalArguments& arguments) {
  ASSIGN_OR_RETURN(const auto source, OpenModelSource(arguments.session.model_path));
  ASSIGN_OR_RETURN(const auto tokenizer, source->LoadTokenizer());
  ASSIGN_OR_RETURN(const auto ids,
                   EncodeFile(*tokenizer, arguments.text_path, arguments.parse_special));
  if (arguments.format == "json") {
    std::cout << nlohmann::json{{"tokens", ids.size()}, {"ids", ids}}.dump() << "\n";
    return OkStatus();
  }
  for (const TokenId id : ids) std::cout << id << "\n";
  return OkStatus();
}

Status LogitsCommand(const EvalArguments& arguments) {
  ModelSessionOptions options = arguments.session;
  options.needs_tokenizer = false;
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(options));
  ASSIGN_OR_RETURN(const auto ids,
                   ReadIds(arguments.ids_path, session->model().config().vocabulary));
  ASSIGN_OR_RETURN(const auto kv, session->NewSequence(arguments.perplexity.readback.format));
  std::ofstream out(arguments.output_path, std::ios::binary);
  if (!out) return IoError("cannot write " + arguments.output_path);
  const bool all = arguments.positions == "all";
  RETURN_IF_ERROR(session->Run(ids, *kv, [&](size_t row, std::span<const float> logits) {
    if (!all && row + 1 != ids.size()) return;
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size_bytes()));
  }));
  out.close();
  if (!out) return IoError("writing " + arguments.output_path + " failed: is the disk full?");
  return OkStatus();
}

namespace {

void AddModel(CLI::App* command, EvalArguments* a) {
  command
      ->add_option("--model", a->session.model_path,
                   "GGUF file, or a folder with config.json and safetensors")
      ->required();
  command->add_option("-o,--output", a->format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
}

void AddDevice(CLI::App* command, EvalArguments* a) {
  command->add_option("--calibration-dir", a->session.calibration_dir,
                      "where calibrations of cq formats are kept");
  command->add_option("--calibration-text", a->session.calibration_text,
                      "a text to calibrate on; default: the bundled one");
  command
      ->add_option("--weights", a->session.weights,
                   "as what matrices are kept that the files hold wider: auto (as they are), bf16, "
                   "int8, int4")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "int4"}));
  command->add_option("--device", a->session.device, "cpu (default), auto, cuda:N");
  command->add_option("--isa", a->session.isa,
                      "auto, avx2, avx512, amx, or reference (plain loops, slow)");
  command->add_option("--threads", a->session.threads, "0: all");
}

void AddCompute(CLI::App* command, EvalArguments* a) {
  command->add_option("--kv-format", a->perplexity.readback.format, "bf16 (default), int8, ...");
  AddDevice(command, a);
}

void AddWindows(CLI::App* command, EvalArguments* a) {
  AddModel(command, a);
  AddCompute(command, a);
  command->add_option("--file", a->text_path, "text");
  command->add_option("--ctx", a->perplexity.context_tokens, "tokens of a window (2048)");
  command->add_option("--chunks", a->perplexity.windows_max, "windows at most; 0: all");
  command->add_option("--sink", a->perplexity.readback.sinks,
                      "first tokens that stay bf16 (0; the store keeps 4)");
  command->add_option("--tail", a->perplexity.readback.tail,
                      "tokens that stay bf16 until so many are complete (0: every token is read "
                      "back coded; the store: 128)");
}

void AddRecall(CLI::App* command, EvalArguments* a) {
  AddModel(command, a);
  AddDevice(command, a);
  command
      ->add_option(
          "--mode", a->long_recall.mode,
          "exact (default): the model alone; stored: exact corpora of an engine and its "
          "store, in --work (formats may end in -untuned: no temperature tuning); segmented")
      ->check(CLI::IsMember({"exact", "stored", "segmented"}));
  command
      ->add_option("--lengths", a->recall_lengths,
                   "tokens, with commas between, K and M of 1024. exact: of prompt and answer "
                   "(1K, doubled up to the model's context); segmented: of a corpus (8K,32K,128K)")
      ->delimiter(',');
  command
      ->add_option("--kv-format,--formats", a->recall.formats,
                   "KV formats (exact: bf16,int8; segmented: cq4)")
      ->delimiter(',');
  command->add_option("--samples", a->recall.samples,
                      "texts a task and length (exact: 10; segmented: 1)");
  command->add_option("--seed", a->recall.seed, "of the texts (1)");
  command->add_option("--plot", a->plot_path, "write a heat map as SVG");
  command->add_option("--answers", a->answers_path, "write each question and its answers as JSON");
  command->add_option("--prompts", a->prompts_path,
                      "write the tokens of each text and question (not with --mode)");
}

void AddSegmented(CLI::App* command, LongRecallArguments* a) {
  command->add_option("--text", a->texts,
                      "NAME=FILE or NAME=FOLDER to hide facts in; may be repeated");
  command->add_option("--split", a->split, "test (default): two thirds of a folder's files; dev")
      ->check(CLI::IsMember({"test", "dev"}));
  command
      ->add_option("--retrieval", a->retrievals,
                   "fused, heads, lexical, default (the engine's), or none: baselines only")
      ->delimiter(',');
  command->add_option("--budget", a->budgets, "tokens a question may attend to; 0: the engine's")
      ->delimiter(',');
  command->add_option("--questions", a->questions, "of a corpus (20)");
  command->add_option("--answer-tokens", a->answer_tokens, "at most (32)");
  command->add_option("--baselines", a->baselines, "full, last, block, rag (all), or none")
      ->delimiter(',');
  command->add_option("--rag-chunk-tokens", a->rag_chunk_tokens, "(128,256,512)")->delimiter(',');
  command->add_option("--rag-chunks", a->rag_chunks, "chunks before the question (1,4,16)")
      ->delimiter(',');
  command->add_option("--rag-questions", a->rag_questions, "of a corpus, for each of them (10)");
  command->add_option("--work", a->work_dir, "folder where prefilled corpora are kept");
  command->add_option("--host-bytes", a->host_bytes, "of the store (2GiB)");
  command->add_option("--disk-bytes", a->disk_bytes, "of the store (40GiB)");
  command->add_option("--device-bytes", a->device_bytes,
                      "of the store, with --device cuda:N (1GiB); 0: half of what is free");
  command->add_flag("!--no-keep", a->keep, "remove each corpus after its questions");
}

void AddRecallCommands(CLI::App* app, EvalArguments* a, Status* status) {
  auto* recall = app->add_subcommand(
      "recall",
      "values hidden in texts, asked for by depth and KV format, as RULER's needle tests; in the "
      "mode segmented beside full attention, the end of the corpus, and Micro-RAG");
  AddRecall(recall, a);
  recall
      ->add_option("--tasks", a->recall_tasks,
                   "exact: passkey, multikey2, multikey3, records (these four by default), pairs, "
                   "repeats; stored: pairs, repeats; segmented: multikey, records, facts (all)")
      ->delimiter(',');
  recall->add_option("--file", a->text_path,
                     "filler of passkey (plain sentences made for it); exact");
  AddSegmented(recall, &a->long_recall);
  recall->callback([=] {
    a->samples_given = recall->count("--samples") > 0;
    *status = RecallCommand(*a);
  });

  auto* needle = app->add_subcommand("needle", "as recall, with facts that nothing resembles");
  AddRecall(needle, a);
  needle->add_option("--file", a->text_path, "filler; exact");
  AddSegmented(needle, &a->long_recall);
  needle->callback([=] {
    a->samples_given = needle->count("--samples") > 0;
    a->long_recall.needle = true;
    *status = RecallCommand(*a);
  });

  auto* report = app->add_subcommand(
      "recall-report", "the tables and heat map of several runs in the mode segmented, together");
  report->add_option("FILES", a->report.answers, "what --answers wrote, also of a run cut off")
      ->required();
  report
      ->add_option("--systems", a->report.systems,
                   "names of those to show, with commas between (all)")
      ->delimiter(',');
  report->add_option("--title", a->report.title, "of the heat map");
  report->add_option("--plot", a->plot_path, "write a heat map as SVG");
  report->add_option("-o,--output", a->format, "table or json, without the single answers")
      ->check(CLI::IsMember({"table", "json"}));
  report->callback([=] { *status = RecallReportCommand(*a); });
}

int Main(int argc, char** argv) {
  CLI::App app("Offline quality of models and KV formats, with the engine's own code.\n");
  app.require_subcommand(1);
  EvalArguments a;
  a.recall.formats.clear();  // each command has its own
  Status status;
  auto* tokenize = app.add_subcommand("tokenize", "print a text's token ids, one a line");
  AddModel(tokenize, &a);
  tokenize->add_option("--file", a.text_path, "text")->required();
  tokenize->add_flag("!--no-special", a.parse_special, "take special tokens' texts as plain text");
  tokenize->callback([&] { status = TokenizeCommand(a); });

  auto* logits = app.add_subcommand("logits", "write float32 logits [n, vocabulary], row-major");
  AddModel(logits, &a);
  AddCompute(logits, &a);
  logits->add_option("--ids", a.ids_path, "token ids, one a line")->required();
  logits->add_option("--out", a.output_path, "file to write")->required();
  logits->add_option("--positions", a.positions, "all (default) or last")
      ->check(CLI::IsMember({"all", "last"}));
  logits->callback([&] { status = LogitsCommand(a); });

  auto* perplexity =
      app.add_subcommand("perplexity", "llama-perplexity's procedure: second half of each window");
  AddWindows(perplexity, &a);
  perplexity->get_option("--file")->required();
  perplexity->callback([&] { status = PerplexityCommand(a); });

  auto* kld = app.add_subcommand(
      "kld",
      "KL divergence from a base file, as llama-perplexity --kl-divergence; either tool "
      "reads the other's base files");
  AddWindows(kld, &a);
  kld->add_option("--make-base", a.perplexity.make_base, "write a base file of --file's text");
  kld->add_option("--base", a.base_path, "compare with this base file, on its own tokens");
  kld->callback([&] {
    a.context_given = kld->count("--ctx") > 0;
    status = KldCommand(a);
  });

  auto* calibrate = app.add_subcommand(
      "calibrate", "fit the cq formats' coordinates to a text, once a model (tens of seconds)");
  AddModel(calibrate, &a);
  AddCompute(calibrate, &a);
  calibrate->callback([&] { status = CalibrateCommand(a); });
  AddRecallCommands(&app, &a, &status);

  auto* formats = app.add_subcommand("formats", "bytes and bits of a model's KV formats");
  AddModel(formats, &a);
  formats->add_option("--formats", a.recall.formats, "KV formats (bf16,int8)")->delimiter(',');
  formats->callback([&] { status = FormatsCommand(a); });

  CLI11_PARSE(app, argc, argv);
  if (status.ok()) return 0;
  std::cerr << "corpus-eval: " << status.message() << "\n";
  return status.code() == StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace
}  // namespace corpusd

int main(int argc, char** argv) { return corpusd::Main(argc, argv); }
