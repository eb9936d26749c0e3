// corpus-eval: quality, offline, with the engine's own code. See --help of each command.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/streaming_encoder.h"
#include "tests/eval/model_session.h"
#include "tests/eval/perplexity.h"

namespace corpusd {
namespace {

struct Arguments {
  ModelSessionOptions session;
  std::string text_path, ids_path, output_path;
  std::string positions = "all";
  std::string device = "cpu";
  PerplexityOptions perplexity;
  bool parse_special = true;
  std::string format = "table";
};

Result<std::vector<TokenId>> EncodeFile(const Tokenizer& tokenizer, const std::string& path,
                                        bool parse_special) {
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path));
  std::vector<TokenId> ids;
  tokenizer.Encode(text, parse_special, &ids);
  return ids;
}

Status Tokenize(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto file, GgufFile::Open(arguments.session.model_path));
  ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::FromGguf(*file));
  ASSIGN_OR_RETURN(const auto ids,
                   EncodeFile(*tokenizer, arguments.text_path, arguments.parse_special));
  if (arguments.format == "json") {
    std::cout << nlohmann::json{{"tokens", ids.size()}, {"ids", ids}}.dump() << "\n";
    return OkStatus();
  }
  for (const TokenId id : ids) std::cout << id << "\n";
  return OkStatus();
}

Result<std::vector<TokenId>> ReadIds(const std::string& path, uint32_t vocabulary) {
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path));
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

Status Logits(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(arguments.session));
  ASSIGN_OR_RETURN(const auto ids,
                   ReadIds(arguments.ids_path, session->model().config().vocabulary));
  ASSIGN_OR_RETURN(const auto kv, session->NewSequence(arguments.perplexity.kv_format));
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

Status Perplexity(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(arguments.session));
  ASSIGN_OR_RETURN(const auto ids,
                   EncodeFile(session->tokenizer(), arguments.text_path, arguments.parse_special));
  const bool live = isatty(STDERR_FILENO) != 0;
  ASSIGN_OR_RETURN(
      const PerplexityReport report,
      MeasurePerplexity(*session, ids, arguments.perplexity, [&](const PerplexityReport& r) {
        if (live) std::fprintf(stderr, "\rwindow %zu: %.4f", r.windows, r.perplexity);
      }));
  if (live) std::fprintf(stderr, "\n");
  if (arguments.format == "json") {
    const nlohmann::json object = {{"perplexity", report.perplexity},
                                   {"standard_error", report.standard_error},
                                   {"windows", report.windows},
                                   {"scored_tokens", report.scored_tokens},
                                   {"context_tokens", arguments.perplexity.context_tokens},
                                   {"kv_format", arguments.perplexity.kv_format},
                                   {"backend", session->backend_name()}};
    std::cout << object.dump() << "\n";
    return OkStatus();
  }
  std::printf("perplexity %.4f +/- %.4f over %zu tokens of %zu windows (%s, %s)\n",
              report.perplexity, report.standard_error, report.scored_tokens, report.windows,
              session->backend_name().c_str(), arguments.perplexity.kv_format.c_str());
  return OkStatus();
}

void AddModel(CLI::App* command, Arguments* a) {
  command->add_option("--model", a->session.model_path, "GGUF file")->required();
  command->add_option("-o,--output", a->format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
}

void AddCompute(CLI::App* command, Arguments* a) {
  command->add_option("--kv-format", a->perplexity.kv_format, "bf16 (default) or int8");
  command->add_option("--device", a->device, "cpu")->check(CLI::IsMember({"cpu", "auto"}));
  command->add_option("--isa", a->session.isa,
                      "auto, avx2, avx512, amx, or reference (plain loops, slow)");
  command->add_option("--threads", a->session.threads, "0: all");
}

int Main(int argc, char** argv) {
  CLI::App app("Offline quality of models and KV formats, with the engine's own code.\n");
  app.require_subcommand(1);
  Arguments a;
  Status status;
  auto* tokenize = app.add_subcommand("tokenize", "print a text's token ids, one a line");
  AddModel(tokenize, &a);
  tokenize->add_option("--file", a.text_path, "text")->required();
  tokenize->add_flag("!--no-special", a.parse_special, "take special tokens' texts as plain text");
  tokenize->callback([&] { status = Tokenize(a); });

  auto* logits = app.add_subcommand("logits", "write float32 logits [n, vocabulary], row-major");
  AddModel(logits, &a);
  AddCompute(logits, &a);
  logits->add_option("--ids", a.ids_path, "token ids, one a line")->required();
  logits->add_option("--out", a.output_path, "file to write")->required();
  logits->add_option("--positions", a.positions, "all (default) or last")
      ->check(CLI::IsMember({"all", "last"}));
  logits->callback([&] { status = Logits(a); });

  auto* perplexity =
      app.add_subcommand("perplexity", "llama-perplexity's procedure: second half of each window");
  AddModel(perplexity, &a);
  AddCompute(perplexity, &a);
  perplexity->add_option("--file", a.text_path, "text")->required();
  perplexity->add_option("--ctx", a.perplexity.context_tokens, "tokens of a window (2048)");
  perplexity->add_option("--chunks", a.perplexity.windows_max, "windows at most; 0: all");
  perplexity->callback([&] { status = Perplexity(a); });

  CLI11_PARSE(app, argc, argv);
  if (status.ok()) return 0;
  std::cerr << "corpus-eval: " << status.message() << "\n";
  return status.code() == StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace
}  // namespace corpusd

int main(int argc, char** argv) { return corpusd::Main(argc, argv); }
