// tests/eval/long_recall.h -- asks systems the questions of long corpora, all of them the same, and
// counts: the block that holds the answer found, the answer right, the document cited, at what
// cost. One thread.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "tests/eval/long_system.h"
#include "tests/eval/recall_statistics.h"

namespace corpusd {

// Recall at so many blocks is counted.
inline constexpr std::array<size_t, 4> kRanks = {1, 4, 16, 48};

struct LongTexts {
  std::string name;
  std::vector<LongDocument> files;
};

// Reads "NAME=PATH"; PATH is a file, or a folder whose files are taken in the order of their names.
// held_out: only the files that tuning does not see, two thirds of a folder; else the others.
Result<LongTexts> ReadLongTexts(const std::string& argument, bool held_out);

struct LongRecallOptions {
  std::vector<LongTask> tasks = {LongTask::kMultikey, LongTask::kRecords, LongTask::kFacts};
  std::vector<uint64_t> lengths = {8192, 32768, 131072};
  std::vector<LongTexts> texts;  // facts are hidden in the first of them only, the others in each
  uint32_t questions = 20;       // of a corpus
  uint32_t samples = 1;          // corpora of a task, text and length
  uint64_t seed = 1;
  std::function<size_t(std::string_view)> count_tokens;
};

struct LongOutcome {
  std::string task;  // LongCorpus::Name
  uint64_t length = 0;
  std::string system;
  LongQuestion question;
  LongAnswer answer;
  bool right = false;
};

struct LongCell {
  std::string task;
  uint64_t length = 0;
  std::string system;
  RecallCount right;
  std::array<RecallCount, kDeciles> right_deciles;
  // Blocks that hold the answer, and any part of its line, among the best of kRanks.
  std::array<RecallCount, kRanks.size()> blocks, lines;
  std::array<RecallCount, kDeciles> block_deciles;  // among the best four
  RecallCount cited;
  // Medians of times, means of the rest, over its questions.
  double first_token_ms = 0, select_ms = 0, total_ms = 0;
  double prefill_flop = 0, computed_tokens = 0, attended_tokens = 0, read_bytes = 0;
};

struct LongPrefill {
  std::string task, system;
  uint64_t length = 0, tokens = 0;
  double seconds = 0;
};

struct LongRecall {
  std::vector<LongOutcome> outcomes;
  std::vector<LongPrefill> prefills;  // what was not stored before
  std::vector<std::string> skipped;   // corpora that cannot be made, and why
};

// progress is called after a system has answered a corpus's questions.
Result<LongRecall> MeasureLongRecall(
    const LongRecallOptions& options, const std::vector<std::unique_ptr<LongSystem>>& systems,
    const std::function<void(const LongRecall&, const std::string& step)>& progress);

// By task, length and system, in the order they came.
std::vector<LongCell> LongCells(const LongRecall& recall);

// The same outcomes as of one task, "all": what a length's corpora give together.
LongRecall Pooled(const LongRecall& recall);

// The Micro-RAG system ("rag ...") with the most right answers of the task at this length (0: at
// all lengths), the one that reads least among equals; "" if there is none.
std::string BestRag(const std::vector<LongCell>& cells, const std::string& task, uint64_t length);

}  // namespace corpusd
