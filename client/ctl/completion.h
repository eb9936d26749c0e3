// client/ctl/completion.h -- completion scripts for bash, zsh and fish, generated from the verbs
// and flags that the parser has; corpus names come from `corpusctl ls -o name` when the user
// presses Tab. Pure.
#pragma once

#include <string>
#include <vector>

namespace corpusd::ctl {

struct FlagWord {
  std::string name;  // "--mode", "-o"
  std::string description;
  bool takes_value = false;
  std::vector<std::string> choices;  // of the value; empty: anything, or a file
};

// What the words after a verb are.
enum class WordKind { kNone, kCorpus, kCorpusThenFiles, kFiles, kJob, kCorpusOrJob, kShell };

struct VerbWord {
  std::string name;
  std::string description;
  WordKind words = WordKind::kNone;
  std::vector<FlagWord> flags;
};

struct CommandWords {
  std::vector<FlagWord> flags;  // global
  std::vector<VerbWord> verbs;
};

std::string BashCompletion(const CommandWords& words);
std::string ZshCompletion(const CommandWords& words);
std::string FishCompletion(const CommandWords& words);

}  // namespace corpusd::ctl
