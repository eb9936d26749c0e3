#include "tests/eval/recall_task.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <unordered_set>

#include "store/base/check.h"

namespace corpusd {
namespace {

// Lines of the text that the answer starts with, as examples: without them SmolLM2-135M finds 40 %
// of multikey2's values in 1024 tokens in place of 90 %.
constexpr size_t kShots = 4;
// Of pairs and repeats: needles are as far apart, but no more than there are keys to tell apart.
constexpr size_t kPairsMax = 1000;
constexpr uint32_t kPairTokens = 200;
constexpr size_t kPairsAsked = 5;  // of a decile
constexpr std::array<std::string_view, kRecallTasks.size()> kNames = {
    "passkey", "multikey2", "multikey3", "records", "pairs", "repeats"};

constexpr std::array kVerbs = {"watches", "follows", "finds",     "passes", "remembers",
                               "carries", "likes",   "visits",    "paints", "hears",
                               "guards",  "repairs", "discovers", "leaves", "describes"};
constexpr std::array kPlaces = {"near", "behind", "above", "beside", "under", "beyond", "before"};

// Every case has its own numbers, whichever other cases are made.
SeededRandom RandomOf(const RecallCaseOptions& options) {
  SeededRandom mixed(options.seed);
  for (const uint64_t part :
       {static_cast<uint64_t>(options.task), uint64_t{options.length}, uint64_t{options.sample}}) {
    mixed = SeededRandom(mixed.Next() ^ part);
  }
  return mixed;
}

// A needle's line is start + " " + value + "."; start is also how its answer starts.
struct Needle {
  std::string key, start, value;
  std::string Line() const { return start + " " + value + ".\n"; }
};

Needle MakeNeedle(RecallTask task, size_t number, SeededRandom& random) {
  // Two words make 3600 keys: enough for 1000, not for the lines of a very long text.
  const auto words = [&] {
    const std::string more = number < 1000 ? "" : random.Pick(kAdjectives) + "-";
    return more + random.Pick(kAdjectives) + "-" + random.Pick(kNouns);
  };
  switch (task) {
    case RecallTask::kPasskey:
      return {"", "The pass key is:", RandomDigits(random, 5)};
    case RecallTask::kMultikey2: {
      const std::string key = words();
      return {key, "The special magic number for " + key + " is:", RandomDigits(random, 5)};
    }
    case RecallTask::kMultikey3: {
      const std::string key = RandomHexDigits(random, 4);
      return {key, "The special magic code for " + key + " is:", RandomHexDigits(random, 4)};
    }
    case RecallTask::kRecords: {
      const std::string key = words();
      return {key, "Status active, region north, code of " + key + ":", RandomDigits(random, 5)};
    }
    case RecallTask::kPairs:
    case RecallTask::kRepeats: {
      const std::string key = random.Pick(kAdjectives) + " " + random.Pick(kNouns);
      return {key, "The code of " + key + " is", RandomDigits(random, 5)};
    }
  }
  return {};
}

std::string QuestionText(RecallTask task, const std::string& key) {
  switch (task) {
    case RecallTask::kPasskey:
      return "What is the pass key?";
    case RecallTask::kMultikey2:
      return "What is the special magic number for " + key + "?";
    case RecallTask::kMultikey3:
      return "What is the special magic code for " + key + "?";
    case RecallTask::kRecords:
      return "What is the code of record " + key + "?";
    case RecallTask::kPairs:
    case RecallTask::kRepeats:
      return "What is the code of " + key + "?";
  }
  return {};
}

Status NoRoom(const RecallCaseOptions& options) {
  return InvalidArgumentError("a prompt of " + std::to_string(options.length) + " tokens leaves " +
                              std::to_string(options.haystack_tokens) +
                              " for a text, too few for the task " +
                              std::string(RecallTaskName(options.task)) + ": choose a longer one");
}

// Needles with keys and values of their own.
std::vector<Needle> MakePairs(const RecallCaseOptions& options, size_t count,
                              SeededRandom& random) {
  std::vector<Needle> needles;
  std::unordered_set<std::string> used;
  while (needles.size() < count) {
    Needle needle = MakeNeedle(options.task, needles.size(), random);
    if (used.contains("=" + needle.value) || !used.insert(needle.key).second) continue;
    used.insert("=" + needle.value);
    needles.push_back(std::move(needle));
  }
  return needles;
}

// Lines of needles with keys and values of their own, as many as fit.
std::vector<Needle> MakeNeedles(const RecallCaseOptions& options, SeededRandom& random) {
  std::vector<Needle> needles;
  std::unordered_set<std::string> used;
  std::string text;
  size_t tokens = 0;
  for (size_t tries = 0; tokens <= options.haystack_tokens && tries < 1000 + 20 * needles.size();
       ++tries) {
    Needle needle = MakeNeedle(options.task, needles.size(), random);
    if (!used.insert("=" + needle.value).second || !used.insert(needle.key).second) continue;
    tokens += options.count_tokens(needle.Line());
    text += needle.Line();
    needles.push_back(std::move(needle));
  }
  // A text may have more tokens than its lines had one by one.
  while (!needles.empty() && options.count_tokens(text) > options.haystack_tokens) {
    text.resize(text.size() - needles.back().Line().size());
    needles.pop_back();
  }
  return needles;
}

Status AddNeedles(const RecallCaseOptions& options, SeededRandom& random, RecallCase* made) {
  const std::vector<Needle> needles = MakeNeedles(options, random);
  if (needles.empty()) return NoRoom(options);
  for (const Needle& needle : needles) {
    made->haystack += needle.Line();
    made->values.push_back(needle.value);
  }
  for (uint32_t decile = 0; decile < kDeciles; ++decile) {
    const size_t first = (decile * needles.size() + kDeciles - 1) / kDeciles;
    const size_t end = ((decile + 1) * needles.size() + kDeciles - 1) / kDeciles;
    if (first == end) continue;
    const size_t asked = first + random.Below(end - first);
    // A few lines of the text say how the answer goes on, as examples do for a small model.
    std::string start;
    for (size_t shot = 0; shot < kShots; ++shot) {
      const size_t other = random.Below(needles.size());
      if (other != asked) start += needles[other].Line();
    }
    made->questions.push_back({QuestionText(options.task, needles[asked].key),
                               start + needles[asked].start, asked, decile});
  }
  return OkStatus();
}

// The filler in pieces that end at a line's or a sentence's end.
std::vector<std::string_view> Pieces(std::string_view filler) {
  std::vector<std::string_view> pieces;
  size_t first = 0;
  for (size_t i = 0; i < filler.size(); ++i) {
    const bool sentence = filler[i] == ' ' && i > 0 && filler[i - 1] == '.';
    if (filler[i] != '\n' && !sentence && i + 1 < filler.size()) continue;
    pieces.push_back(filler.substr(first, i + 1 - first));
    first = i + 1;
  }
  return pieces;
}

Status AddPasskey(const RecallCaseOptions& options, SeededRandom& random, RecallCase* made) {
  const Needle needle = MakeNeedle(options.task, 0, random);
  const std::string line = "\n" + needle.start + " " + needle.value + ". Remember it. " +
                           needle.value + " is the pass key.\n";
  const std::string own = options.filler.empty()
                              ? RecallFiller(random.Next(), size_t{8} * options.haystack_tokens)
                              : "";
  const auto pieces = Pieces(options.filler.empty() ? std::string_view(own) : options.filler);
  const size_t line_tokens = options.count_tokens(line);
  if (pieces.empty() || line_tokens >= options.haystack_tokens) return NoRoom(options);
  // From a place of its own in the filler, around its end if need be.
  std::vector<std::string_view> taken;
  size_t tokens = line_tokens;
  const size_t begin = random.Below(pieces.size());
  while (tokens < options.haystack_tokens) {
    taken.push_back(pieces[(begin + taken.size()) % pieces.size()]);
    tokens += options.count_tokens(taken.back());
  }
  const uint32_t decile = options.sample % kDeciles;
  do {
    if (taken.empty()) return NoRoom(options);
    taken.pop_back();
    size_t bytes = 0;
    for (const auto piece : taken) bytes += piece.size();
    made->haystack.clear();
    bool placed = false;
    for (const auto piece : taken) {
      if (!placed && made->haystack.size() * kDeciles * 2 >= bytes * (2 * decile + 1)) {
        made->haystack += line;
        placed = true;
      }
      made->haystack += piece;
    }
    if (!placed) made->haystack += line;
  } while (options.count_tokens(made->haystack) > options.haystack_tokens);
  made->values = {needle.value};
  made->questions = {{QuestionText(options.task, ""), needle.start, 0, decile}};
  return OkStatus();
}

// Questions for some needles of every decile of the text. place: where a needle's line begins.
void AskPairs(const RecallCaseOptions& options, std::span<const Needle> needles,
              std::span<const size_t> places, SeededRandom& random, RecallCase* made) {
  for (uint32_t decile = 0; decile < kDeciles; ++decile) {
    std::vector<size_t> inside;
    for (size_t i = 0; i < needles.size(); ++i) {
      if (places[i] * kDeciles / made->haystack.size() == decile) inside.push_back(i);
    }
    for (size_t asked = 0; asked < kPairsAsked && !inside.empty(); ++asked) {
      const size_t at = random.Below(inside.size());
      made->questions.push_back(
          {QuestionText(options.task, needles[inside[at]].key), "", inside[at], decile});
      inside.erase(inside.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
}

// Sentences with needles between them, evenly; of repeats one sentence again and again.
Status AddPairs(const RecallCaseOptions& options, SeededRandom& random, RecallCase* made) {
  const size_t room = options.haystack_tokens;
  std::string filler = RecallFiller(random.Next(), size_t{8} * room);
  if (options.task == RecallTask::kRepeats) {
    const std::string sentence = filler.substr(0, filler.find('.') + 1) + " ";
    filler.clear();
    while (filler.size() < size_t{8} * room) filler += sentence;
  }
  const auto pieces = Pieces(options.filler.empty() ? std::string_view(filler) : options.filler);
  const auto needles =
      MakePairs(options, std::clamp<size_t>(room / kPairTokens, kDeciles, kPairsMax), random);
  if (pieces.empty()) return NoRoom(options);
  size_t tokens = 0, next = random.Below(pieces.size());
  // Sentences until there are so many tokens, without passing the limit.
  const auto fill = [&](size_t until, size_t limit) {
    while (tokens < until) {
      const std::string_view piece = pieces[next++ % pieces.size()];
      const size_t piece_tokens = options.count_tokens(piece);
      if (tokens + piece_tokens > limit) return;
      made->haystack += piece;
      tokens += piece_tokens;
    }
  };
  // Every needle has its share of the tokens, which it stands somewhere inside of.
  std::vector<size_t> places;
  for (size_t i = 0; i < needles.size(); ++i) {
    const std::string line = needles[i].start + " " + needles[i].value + ". ";
    const size_t line_tokens = options.count_tokens(line);
    const size_t end = (i + 1) * room / needles.size();
    if (tokens + line_tokens > end) return NoRoom(options);
    const size_t latest = end - line_tokens;
    fill(tokens + random.Below(latest - tokens + 1), latest);
    places.push_back(made->haystack.size());
    made->haystack += line;
    made->values.push_back(needles[i].value);
    tokens += line_tokens;
    fill(end, end);
  }
  AskPairs(options, needles, places, random, made);
  return OkStatus();
}

Status AddTask(const RecallCaseOptions& options, SeededRandom& random, RecallCase* made) {
  switch (options.task) {
    case RecallTask::kPasskey:
      return AddPasskey(options, random, made);
    case RecallTask::kPairs:
    case RecallTask::kRepeats:
      return AddPairs(options, random, made);
    default:
      return AddNeedles(options, random, made);
  }
}

}  // namespace

std::string_view RecallTaskName(RecallTask task) { return kNames[static_cast<size_t>(task)]; }

Result<RecallTask> ParseRecallTask(std::string_view name) {
  for (const RecallTask task : kRecallTasks) {
    if (name == RecallTaskName(task)) return task;
  }
  return InvalidArgumentError("there is no task '" + std::string(name) +
                              "': use passkey, multikey2, multikey3, records, pairs or repeats");
}

Result<RecallCase> MakeRecallCase(const RecallCaseOptions& options) {
  RecallCase made;
  made.task = options.task;
  made.length = options.length;
  made.sample = options.sample;
  SeededRandom random = RandomOf(options);
  RETURN_IF_ERROR(AddTask(options, random, &made));
  return made;
}

std::string RecallFiller(uint64_t seed, size_t bytes) {
  SeededRandom random(seed);
  std::string text;
  for (size_t sentence = 0; text.size() < bytes; ++sentence) {
    text += "The " + random.Pick(kAdjectives) + " " + random.Pick(kNouns) + " " +
            random.Pick(kVerbs) + " the " + random.Pick(kNouns) + " " + random.Pick(kPlaces) +
            " the " + random.Pick(kAdjectives) + " " + random.Pick(kNouns) + ".";
    text += sentence % 6 == 5 ? "\n" : " ";
  }
  return text;
}

RecallOutcome ClassifyAnswer(const RecallCase& recall, const RecallQuestion& question,
                             std::string_view answer) {
  if (HoldsWord(answer, recall.values[question.needle])) return RecallOutcome::kHit;
  RecallOutcome outcome = RecallOutcome::kMiss;
  for (size_t i = 0; i < recall.values.size(); ++i) {
    if (!HoldsWord(answer, recall.values[i])) continue;
    if (i + 1 == question.needle || i == question.needle + 1) return RecallOutcome::kNeighbour;
    outcome = RecallOutcome::kOther;
  }
  return outcome;
}

}  // namespace corpusd
