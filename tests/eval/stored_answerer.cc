#include "tests/eval/stored_answerer.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "store/block_store.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Of the prompt: the template's tokens, the question, the answer.
constexpr uint32_t kFrameTokens = 276;
constexpr uint32_t kAnswerTokens = 12;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A folder whose files are the model's but for the switch in its configuration.
Status MakeUntuned(const std::string& model, const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(model, error)) {
    return InvalidArgumentError(model + ": temperature tuning is switched off in folders only");
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(model + "/config.json"));
  nlohmann::json config = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (config.is_discarded()) return InvalidArgumentError(model + "/config.json is no JSON");
  config["attn_temperature_tuning"] = false;
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  for (const fs::directory_entry& entry : fs::directory_iterator(model, error)) {
    if (entry.path().filename() == "config.json") continue;
    fs::create_symlink(fs::absolute(entry.path()), fs::path(folder) / entry.path().filename(),
                       error);
  }
  std::ofstream out(folder + "/config.json", std::ios::binary);
  out << config.dump();
  out.close();
  if (error || !out) return IoError("cannot write " + folder);
  return OkStatus();
}

class EngineAnswerer final : public StoredAnswerer {
 public:
  explicit EngineAnswerer(const StoredAnswererOptions& options) : options_(options) {}

  Status Open() {
    BlockStoreOptions store;
    store.data_dir = options_.work_dir;
    store.host_bytes = options_.host_bytes;
    store.disk_bytes = options_.disk_bytes;
    store.device = options_.device;
    store.device_bytes = options_.device_bytes;
    std::error_code error;
    fs::create_directories(store.data_dir, error);
    ASSIGN_OR_RETURN(store_, BlockStore::Open(store));
    ASSIGN_OR_RETURN(tuned_, Engine::Create(options_.engine, store_.get()));
    return OkStatus();
  }

  uint32_t context_tokens() const override {
    return static_cast<uint32_t>(tuned_->model().context_tokens);
  }
  uint32_t frame_tokens() const override { return kFrameTokens; }
  size_t CountTokens(std::string_view text) const override {
    return tuned_->Tokenize(text, /*parse_special=*/false).size();
  }
  Status CheckFormat(const std::string& format) const override {
    return tuned_->ShapeOf(FormatOf(format)).status();
  }
  const StoredCosts& costs() const override { return costs_; }
  const std::string& backend() const override { return tuned_->model().backend; }

  Result<std::vector<std::string>> Answer(const RecallCase& recall,
                                          const std::string& format) override {
    ASSIGN_OR_RETURN(Engine* const engine, EngineOf(format));
    CorpusRequest corpus;
    corpus.name = "recall";
    corpus.mode = "exact";
    corpus.kv_format = FormatOf(format);
    const Status removed = store_->RemoveCorpus(corpus.name);
    if (!removed.ok() && removed.code() != StatusCode::kNotFound) return removed;
    ASSIGN_OR_RETURN(auto tokenizer, engine->NewCorpusTokenizer("", false, 0));
    tokenizer->BeginSource("text");
    tokenizer->Append(recall.haystack);
    tokenizer->EndSource();
    ASSIGN_OR_RETURN(const CorpusRecord record, engine->CreateCorpus(corpus, std::move(tokenizer)));
    const auto start = Clock::now();
    RETURN_IF_ERROR(engine->Prefill(corpus.name, [](const PrefillProgress&) {}, {}));
    costs_.prefill_seconds += SecondsSince(start);
    costs_.prefilled_tokens += record.tokens;
    auto answers = AskAll(*engine, recall, corpus.name);
    RETURN_IF_ERROR(store_->RemoveCorpus(corpus.name));
    return answers;
  }

 private:
  static bool IsUntuned(std::string_view format) { return format.ends_with(kUntuned); }
  static std::string FormatOf(const std::string& format) {
    return format.substr(0, format.size() - (IsUntuned(format) ? kUntuned.size() : 0));
  }

  Result<Engine*> EngineOf(const std::string& format) {
    if (!IsUntuned(format)) return tuned_.get();
    if (untuned_ == nullptr) {
      EngineOptions options = options_.engine;
      options.model_path = options_.work_dir + "/untuned-model";
      RETURN_IF_ERROR(MakeUntuned(options_.engine.model_path, options.model_path));
      ASSIGN_OR_RETURN(untuned_, Engine::Create(options, store_.get()));
    }
    return untuned_.get();
  }

  Result<std::vector<std::string>> AskAll(Engine& engine, const RecallCase& recall,
                                          const std::string& corpus) {
    std::vector<std::string> answers;
    const auto start = Clock::now();
    for (const RecallQuestion& question : recall.questions) {
      if (!question.answer_start.empty()) {
        return InvalidArgumentError(std::string(RecallTaskName(recall.task)) +
                                    " begins the answers itself, which nobody can do for a stored "
                                    "corpus: use the tasks pairs and repeats");
      }
      QuestionRequest request;
      request.corpus = corpus;
      request.question = question.text;
      request.max_tokens = kAnswerTokens;
      ASSIGN_OR_RETURN(const QuestionReport report,
                       engine.Ask(request, [](const AnswerDelta&) { return true; }, {}));
      answers.push_back(report.answer);
    }
    costs_.question_seconds += SecondsSince(start);
    costs_.questions += answers.size();
    return answers;
  }

  const StoredAnswererOptions options_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Engine> tuned_, untuned_;
  StoredCosts costs_;
};

}  // namespace

Result<std::unique_ptr<StoredAnswerer>> MakeStoredAnswerer(const StoredAnswererOptions& options) {
  auto answerer = std::make_unique<EngineAnswerer>(options);
  RETURN_IF_ERROR(answerer->Open());
  return Result<std::unique_ptr<StoredAnswerer>>(std::move(answerer));
}

}  // namespace corpusd
