#include "tests/eval/long_task.h"

#include <algorithm>
#include <numeric>

#include "tests/eval/long_fact.h"

namespace corpusd {
namespace {

constexpr std::array<std::string_view, kLongTasks.size()> kNames = {"needle", "multikey", "records",
                                                                    "facts"};
// Of a document, before facts; about 4 bytes a token. Real folders have short and long files, and
// the longest must be more than one window of a segmented corpus.
constexpr std::array<size_t, 6> kDocumentBytes = {1000, 2000, 4000, 8000, 16000, 32000};
constexpr size_t kDocumentTokensMin = 40;  // a shorter rest is left out
constexpr size_t kFactTokens = 1000;       // of the corpus for each fact, in long ones

SeededRandom RandomOf(const LongCorpusOptions& options) {
  // Apart from the numbers of recall_task.h, whose seeds people may use for other things.
  SeededRandom mixed(options.seed ^ 0x6c6f6e672d746173);
  for (const uint64_t part : {static_cast<uint64_t>(options.task), options.length}) {
    mixed = SeededRandom(mixed.Next() ^ part);
  }
  for (const char c : options.texts_name)
    mixed = SeededRandom(mixed.Next() ^ static_cast<uint8_t>(c));
  return mixed;
}

std::string LinePrefix(std::string_view texts_name) {
  if (texts_name.starts_with("code")) return "# ";
  if (texts_name.starts_with("log")) return "Jun 21 16:47:48 gate clerk[417]: ";
  return "";
}

Status TooShort(const LongCorpusOptions& options, const std::string& why) {
  return InvalidArgumentError(std::string(LongTaskName(options.task)) + " at " +
                              std::to_string(options.length) + " tokens: " + why);
}

// A line's end at or before `bytes`, or behind if the first line is longer.
size_t CutAtLine(std::string_view text, size_t bytes) {
  if (bytes >= text.size()) return text.size();
  const size_t before = text.rfind('\n', bytes - 1);
  if (before != std::string_view::npos) return before + 1;
  const size_t behind = text.find('\n', bytes);
  return behind == std::string_view::npos ? text.size() : behind + 1;
}

// Cuts whole files into documents, file after file in an order of the seed.
class DocumentCutter {
 public:
  DocumentCutter(std::span<const LongDocument> files, std::string texts_name, SeededRandom& random)
      : files_(files), texts_name_(std::move(texts_name)), random_(random), order_(files.size()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random_.Below(i)]);
  }

  // False: the files are used up.
  bool Next(LongDocument* document) {
    while (file_ < order_.size() && at_ >= files_[order_[file_]].text.size()) {
      ++file_;
      at_ = 0;
      part_ = 0;
    }
    if (file_ == order_.size()) return false;
    const LongDocument& file = files_[order_[file_]];
    const std::string_view rest = std::string_view(file.text).substr(at_);
    const size_t bytes = CutAtLine(rest, kDocumentBytes[random_.Below(kDocumentBytes.size())]);
    document->path =
        texts_name_ + "/" + file.path + (part_ == 0 ? "" : "." + std::to_string(part_));
    document->text = rest.substr(0, bytes);
    if (document->text.back() != '\n') document->text += '\n';
    at_ += bytes;
    ++part_;
    return true;
  }

 private:
  const std::span<const LongDocument> files_;
  const std::string texts_name_;
  SeededRandom& random_;
  std::vector<size_t> order_;
  size_t file_ = 0, at_ = 0, part_ = 0;
};

// Documents of `tokens` tokens, or a little less.
Result<std::vector<LongDocument>> CutDocuments(const LongCorpusOptions& options, size_t tokens,
                                               SeededRandom random) {
  DocumentCutter cutter(options.texts, options.texts_name, random);
  std::vector<LongDocument> documents;
  size_t have = 0;
  for (LongDocument document; have + kDocumentTokensMin <= tokens;) {
    if (!cutter.Next(&document)) {
      return TooShort(options,
                      "the texts '" + options.texts_name + "' have only " + std::to_string(have));
    }
    size_t count = options.count_tokens(document.text);
    while (have + count > tokens) {
      const size_t wanted = document.text.size() * (tokens - have) / count;
      const size_t cut = wanted == 0 ? 0 : CutAtLine(document.text, wanted);
      if (cut == 0 || cut >= document.text.size()) break;
      document.text.resize(cut);
      count = options.count_tokens(document.text);
    }
    if (have + count > tokens) break;
    if (count < kDocumentTokensMin / 2) continue;
    have += count;
    documents.push_back(std::move(document));
  }
  if (documents.empty()) return TooShort(options, "no document fits beside the facts");
  return documents;
}

struct PlacedFact {
  size_t document = 0, line_start = 0;  // in the document's text without facts
};

// The place of each of `count` facts: evenly by bytes, at the next line.
std::vector<PlacedFact> PlaceFacts(std::span<const LongDocument> documents, size_t count) {
  size_t total = 0;
  for (const LongDocument& document : documents) total += document.text.size();
  std::vector<PlacedFact> placed;
  size_t document = 0, before = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t target = total * (2 * i + 1) / (2 * count);
    while (target >= before + documents[document].text.size()) {
      before += documents[document++].text.size();
    }
    const size_t line = documents[document].text.find('\n', target - before);
    placed.push_back({document, line + 1});  // every document ends in one
  }
  return placed;
}

// Asks for facts evenly over the depth.
void AddQuestions(const std::vector<LongFact>& facts, const std::vector<PlacedFact>& placed,
                  const std::string& prefix, uint32_t questions, SeededRandom& random,
                  LongCorpus* corpus) {
  const size_t count = std::min<size_t>(questions, facts.size());
  for (size_t q = 0; q < count; ++q) {
    const size_t first = q * facts.size() / count, end = (q + 1) * facts.size() / count;
    const size_t asked = first + random.Below(end - first);
    corpus->questions.push_back(
        {facts[asked].question, facts[asked].answer, placed[asked].document,
         prefix + facts[asked].sentence,
         static_cast<uint32_t>(kDeciles * (2 * asked + 1) / (2 * facts.size()))});
  }
}

size_t CountTokens(const LongCorpusOptions& options, std::span<const LongDocument> documents) {
  size_t tokens = 0;
  for (const LongDocument& document : documents) tokens += options.count_tokens(document.text);
  return tokens;
}

Status MakeFilled(const LongCorpusOptions& options, SeededRandom& random, LongCorpus* corpus) {
  const size_t wanted =
      options.task == LongTask::kNeedle
          ? kDeciles
          : std::max<size_t>(size_t{2} * options.questions, options.length / kFactTokens);
  const std::vector<LongFact> facts = MakeLongFacts(options.task, wanted, random);
  const std::string prefix = LinePrefix(options.texts_name);
  size_t room = options.length;
  for (const LongFact& fact : facts) {
    const size_t tokens = options.count_tokens(prefix + fact.sentence + "\n");
    if (tokens >= room) return TooShort(options, "there is no room for its facts");
    room -= tokens;
  }
  // Lines put into a text may cost a token more than alone.
  for (size_t tries = 0; tries < 8 && room > 0; ++tries) {
    ASSIGN_OR_RETURN(corpus->documents, CutDocuments(options, room, random));
    const auto placed = PlaceFacts(corpus->documents, facts.size());
    for (size_t i = facts.size(); i-- > 0;) {  // from the end: places before stay
      corpus->documents[placed[i].document].text.insert(placed[i].line_start,
                                                        prefix + facts[i].sentence + "\n");
    }
    corpus->tokens = CountTokens(options, corpus->documents);
    if (corpus->tokens <= options.length) {
      AddQuestions(facts, placed, prefix, options.questions, random, corpus);
      return OkStatus();
    }
    room -= std::min<size_t>(room, corpus->tokens - options.length + 8);
  }
  return TooShort(options, "its facts leave no room for a text");
}

Status MakeRecords(const LongCorpusOptions& options, SeededRandom& random, LongCorpus* corpus) {
  const size_t line_tokens =
      options.count_tokens(MakeLongFacts(options.task, 1, random)[0].sentence + "\n");
  size_t count = options.length / line_tokens;
  for (; count > 0; count -= std::min(count, 1 + count / 64)) {
    SeededRandom words = random;
    const std::vector<LongFact> facts = MakeLongFacts(options.task, count, words);
    std::vector<PlacedFact> placed;
    corpus->documents.clear();
    for (size_t line = 0; line < facts.size();) {
      const size_t end = std::min(facts.size(), line + 20 + words.Below(200));
      corpus->documents.push_back(
          {"records/" + std::to_string(corpus->documents.size()) + ".txt", ""});
      for (; line < end; ++line) {
        placed.push_back({corpus->documents.size() - 1, corpus->documents.back().text.size()});
        corpus->documents.back().text += facts[line].sentence + "\n";
      }
    }
    corpus->tokens = CountTokens(options, corpus->documents);
    if (corpus->tokens > options.length) continue;
    AddQuestions(facts, placed, "", options.questions, words, corpus);
    return OkStatus();
  }
  return TooShort(options, "not one record fits");
}

}  // namespace

std::string_view LongTaskName(LongTask task) { return kNames[static_cast<size_t>(task)]; }

Result<LongTask> ParseLongTask(std::string_view name) {
  for (const LongTask task : kLongTasks) {
    if (name == LongTaskName(task)) return task;
  }
  return InvalidArgumentError("there is no task '" + std::string(name) +
                              "': use needle, multikey, records or facts");
}

std::string LongCorpus::Name() const {
  return std::string(LongTaskName(task)) + (texts.empty() ? "" : "-" + texts);
}

Result<LongCorpus> MakeLongCorpus(const LongCorpusOptions& options) {
  if (options.questions == 0) return InvalidArgumentError("a corpus needs a question at least");
  LongCorpus corpus;
  corpus.task = options.task;
  if (options.task != LongTask::kRecords) corpus.texts = options.texts_name;
  corpus.length = options.length;
  corpus.seed = options.seed;
  SeededRandom random = RandomOf(options);
  RETURN_IF_ERROR(options.task == LongTask::kRecords ? MakeRecords(options, random, &corpus)
                                                     : MakeFilled(options, random, &corpus));
  return corpus;
}

}  // namespace corpusd
