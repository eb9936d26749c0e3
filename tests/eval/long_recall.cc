#include "tests/eval/long_recall.h"

#include <algorithm>
#include <filesystem>

#include "store/base/check.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

namespace fs = std::filesystem;

// A question asked of half the corpora would count more than its fair share: evenly by depth.
bool IsAsked(size_t question, size_t questions, size_t asked) {
  return asked >= questions || (question + 1) * asked / questions != question * asked / questions;
}

Status AskAll(const LongCorpus& corpus, LongSystem& system, LongRecall* recall) {
  const size_t count = corpus.questions.size();
  for (size_t i = 0; i < count; ++i) {
    if (!IsAsked(i, count, system.questions_max())) continue;
    const LongQuestion& question = corpus.questions[i];
    ASSIGN_OR_RETURN(LongAnswer answer, system.Ask(corpus, question));
    const bool right = HoldsWord(answer.text, question.answer);
    recall->outcomes.push_back(
        {corpus.Name(), corpus.length, system.name(), question, std::move(answer), right});
  }
  return OkStatus();
}

Status MeasureCorpus(const LongCorpus& corpus,
                     const std::vector<std::unique_ptr<LongSystem>>& systems,
                     const std::function<void(const LongRecall&, const std::string&)>& progress,
                     LongRecall* recall) {
  for (const auto& system : systems) {
    ASSIGN_OR_RETURN(const bool taken, system->Prepare(corpus));
    if (!taken) continue;
    if (system->prepare_seconds() > 0) {
      recall->prefills.push_back(
          {corpus.Name(), system->name(), corpus.length, corpus.tokens, system->prepare_seconds()});
    }
    RETURN_IF_ERROR(AskAll(corpus, *system, recall));
    RETURN_IF_ERROR(system->Release());
    progress(*recall, corpus.Name() + " " + std::to_string(corpus.length) + " " + system->name());
  }
  return OkStatus();
}

// Which texts a task is made of; the empty ones stand for none.
std::vector<const LongTexts*> TextsOf(LongTask task, const std::vector<LongTexts>& texts,
                                      const LongTexts& none) {
  if (task == LongTask::kRecords) return {&none};
  std::vector<const LongTexts*> taken;
  for (const LongTexts& text : texts) {
    if (task != LongTask::kFacts || taken.empty()) taken.push_back(&text);
  }
  return taken;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void Count(bool hit, RecallCount* count) {
  count->Add(hit ? RecallOutcome::kHit : RecallOutcome::kMiss);
}

void AddOutcome(const LongOutcome& outcome, LongCell* cell) {
  const LongAnswer& answer = outcome.answer;
  Count(outcome.right, &cell->right);
  Count(outcome.right, &cell->right_deciles[outcome.question.decile]);
  if (answer.cited) Count(*answer.cited, &cell->cited);
  cell->prefill_flop += answer.prefill_flop;
  cell->computed_tokens += static_cast<double>(answer.computed_tokens);
  cell->attended_tokens += static_cast<double>(answer.attended_tokens);
  cell->read_bytes += static_cast<double>(answer.read_bytes);
  if (!answer.ranked) return;
  for (size_t i = 0; i < kRanks.size(); ++i) {
    Count(answer.rank && *answer.rank < kRanks[i], &cell->blocks[i]);
    Count(answer.line_rank && *answer.line_rank < kRanks[i], &cell->lines[i]);
  }
  Count(answer.rank && *answer.rank < 4, &cell->block_deciles[outcome.question.decile]);
}

void Finish(const LongRecall& recall, LongCell* cell) {
  const auto asked = static_cast<double>(cell->right.asked);
  for (double* sum :
       {&cell->prefill_flop, &cell->computed_tokens, &cell->attended_tokens, &cell->read_bytes}) {
    *sum /= asked;
  }
  std::vector<double> first, select, total;
  for (const LongOutcome& outcome : recall.outcomes) {
    if (outcome.task != cell->task || outcome.length != cell->length ||
        outcome.system != cell->system) {
      continue;
    }
    first.push_back(outcome.answer.first_token_ms);
    select.push_back(outcome.answer.select_ms);
    total.push_back(outcome.answer.total_ms);
  }
  cell->first_token_ms = Median(first);
  cell->select_ms = Median(select);
  cell->total_ms = Median(total);
}

}  // namespace

Result<LongTexts> ReadLongTexts(const std::string& argument, bool held_out) {
  const size_t equals = argument.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return InvalidArgumentError("--text '" + argument + "': write NAME=FILE or NAME=FOLDER");
  }
  LongTexts texts;
  texts.name = argument.substr(0, equals);
  const fs::path root = argument.substr(equals + 1);
  std::error_code error;
  std::vector<fs::path> paths;
  if (!fs::is_directory(root, error)) {
    paths.push_back(root);
  } else {
    for (const auto& entry : fs::directory_iterator(root, error)) {
      if (entry.is_regular_file(error)) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    if (paths.size() > 1 && (i % 3 != 0) != held_out) continue;
    ASSIGN_OR_RETURN(std::string text, ReadFile(paths[i].string()));
    texts.files.push_back({paths[i].filename().string(), std::move(text)});
  }
  if (texts.files.empty()) return InvalidArgumentError(root.string() + " holds no file");
  return texts;
}

Result<LongRecall> MeasureLongRecall(
    const LongRecallOptions& options, const std::vector<std::unique_ptr<LongSystem>>& systems,
    const std::function<void(const LongRecall&, const std::string&)>& progress) {
  if (options.samples == 0) return InvalidArgumentError("recall needs a sample at least");
  LongRecall recall;
  const LongTexts none;
  for (const LongTask task : options.tasks) {
    const auto texts = TextsOf(task, options.texts, none);
    if (texts.empty()) {
      return InvalidArgumentError(std::string(LongTaskName(task)) +
                                  " hides facts in texts: name some by --text");
    }
    for (const LongTexts* text : texts) {
      for (const uint64_t length : options.lengths) {
        for (uint32_t sample = 0; sample < options.samples; ++sample) {
          const auto corpus =
              MakeLongCorpus({task, text->name, text->files, length, options.seed + sample,
                              options.questions, options.count_tokens});
          if (!corpus.ok()) {
            recall.skipped.push_back(corpus.status().message());
            break;
          }
          RETURN_IF_ERROR(MeasureCorpus(*corpus, systems, progress, &recall));
        }
      }
    }
  }
  return recall;
}

std::vector<LongCell> LongCells(const LongRecall& recall) {
  std::vector<LongCell> cells;
  for (const LongOutcome& outcome : recall.outcomes) {
    auto found = std::find_if(cells.begin(), cells.end(), [&](const LongCell& cell) {
      return cell.task == outcome.task && cell.length == outcome.length &&
             cell.system == outcome.system;
    });
    if (found == cells.end()) {
      LongCell cell;
      cell.task = outcome.task;
      cell.length = outcome.length;
      cell.system = outcome.system;
      found = cells.insert(cells.end(), std::move(cell));
    }
    AddOutcome(outcome, &*found);
  }
  for (LongCell& cell : cells) Finish(recall, &cell);
  return cells;
}

LongRecall Pooled(const LongRecall& recall) {
  LongRecall pooled;
  pooled.outcomes = recall.outcomes;
  for (LongOutcome& outcome : pooled.outcomes) outcome.task = "all";
  return pooled;
}

std::string BestRag(const std::vector<LongCell>& cells, const std::string& task, uint64_t length) {
  struct Sum {
    std::string system;
    RecallCount right;
    double tokens = 0;
  };
  std::vector<Sum> sums;
  for (const LongCell& cell : cells) {
    if (cell.task != task || (length > 0 && cell.length != length)) continue;
    if (!cell.system.starts_with("rag ")) continue;
    auto found = std::find_if(sums.begin(), sums.end(),
                              [&](const Sum& sum) { return sum.system == cell.system; });
    if (found == sums.end()) found = sums.insert(sums.end(), Sum{cell.system, {}, 0});
    found->right.asked += cell.right.asked;
    found->right.hits += cell.right.hits;
    found->tokens += cell.computed_tokens;
  }
  const auto best = std::max_element(sums.begin(), sums.end(), [](const Sum& a, const Sum& b) {
    return a.right.recall() != b.right.recall() ? a.right.recall() < b.right.recall()
                                                : a.tokens > b.tokens;
  });
  return best == sums.end() ? "" : best->system;
}

}  // namespace corpusd
