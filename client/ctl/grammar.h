// client/ctl/grammar.h -- Grammar: the verbs and flags as CLI11 knows them, and the Arguments that
// they fill. A part of cli.cc: nobody else includes this. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "client/ctl/cli.h"

namespace corpusd::ctl {

// The parser and what it fills. CLI11 keeps pointers into it, so it stays where it is.
class Grammar {
 public:
  Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  ParseOutcome Parse(const std::vector<std::string>& words);
  CommandWords Describe() const;

 private:
  CLI::App* AddVerb(const std::string& name, const std::string& description, WordKind words,
                    const std::string& example);
  void AddGlobalFlags();
  void AddIngestVerbs();
  // Of the verbs that read files.
  void AddSourceFlags(CLI::App* verb, const std::string& paths);
  void AddPlanVerb();
  void AddAskVerb();
  void AddSamplingFlags(CLI::App* ask);
  void AddCorpusVerbs();
  void AddTierVerbs();
  void AddJobVerbs();
  void AddAdminVerbs();
  void AddIntegrityVerbs();
  void AddStatsVerbs();
  void AddName(CLI::App* verb, const std::string& what);
  void AddChoice(CLI::App* verb, const std::string& flag, std::string& target,
                 const std::string& description, const std::vector<std::string>& choices);
  // Turns the words that CLI11 left as text into values. RETURNS what is wrong with them.
  ClientResult<Done> Finish();
  ClientResult<Done> ReadTtl();
  ClientResult<Done> ReadSizes();
  ClientResult<Done> CheckNameAndFile() const;
  FlagWord DescribeFlag(const CLI::Option& option) const;

  CLI::App app_{"corpusctl: prefill corpora once and ask them, through a running corpusd.",
                "corpusctl"};
  Arguments arguments_;
  std::string output_ = "table";
  std::string timeout_;
  std::string ttl_;
  std::string rate_;
  std::string to_free_;
  std::string link_;
  std::string max_bytes_;
  std::string interval_;
  std::map<std::string, WordKind> words_of_verb_;
  std::map<const CLI::Option*, std::vector<std::string>> choices_;
};

}  // namespace corpusd::ctl
