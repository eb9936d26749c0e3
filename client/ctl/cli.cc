#include "client/ctl/cli.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "client/ctl/grammar.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"
#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

ClientError Usage(std::string message) {
  return {kClientInvalidArgument, "usage", std::move(message)};
}

// Global flags with a value, for finding the verb in a line that does not parse.
bool TakesValue(std::string_view word) {
  return word == "-o" || word == "--output" || word == "--socket" || word == "--timeout";
}

// The first word that is neither a flag nor a flag's value; empty if there is none.
std::string FirstWord(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") return "";
    if (TakesValue(words[i])) {
      ++i;
    } else if (!words[i].starts_with('-')) {
      return words[i];
    }
  }
  return "";
}

// As the daemon allows names of tokens and tenants.
bool IsTokenWord(std::string_view word) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !word.empty() && word.size() <= 64 && alphanumeric(word.front()) &&
         std::all_of(word.begin(), word.end(),
                     [&](char c) { return alphanumeric(c) || c == '_' || c == '-'; });
}

// What -o says in a line that may not parse.
OutputMode GuessOutputMode(const std::vector<std::string>& words) {
  OutputMode mode = OutputMode::kTable;
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    std::string_view value;
    if (words[i] == "-o" || words[i] == "--output") {
      if (i + 1 < words.size()) value = words[i + 1];
    } else if (words[i].starts_with("--output=")) {
      value = std::string_view(words[i]).substr(9);
    } else if (words[i].starts_with("-o")) {
      value = std::string_view(words[i]).substr(2);
      if (value.starts_with('=')) value.remove_prefix(1);
    }
    mode = ParseOutputMode(value).value_or(mode);
  }
  return mode;
}

}  // namespace

ClientResult<Done> Grammar::ReadSizes() {
  if (!to_free_.empty()) {
    arguments_.to_free_bytes = ParseByteRate(to_free_).value_or(0);
    if (arguments_.to_free_bytes == 0) {
      return Usage("--to-free: '" + to_free_ + "' is no size; say it as in 20GiB");
    }
  }
  if (!max_bytes_.empty()) {
    arguments_.unpacked_bytes_max = ParseByteRate(max_bytes_).value_or(0);
    if (arguments_.unpacked_bytes_max == 0) {
      return Usage("--max-bytes: '" + max_bytes_ + "' is no size; say it as in 20GiB");
    }
  }
  if (!link_.empty()) {
    arguments_.link_bytes_per_s = ParseByteRate(link_).value_or(0);
    if (arguments_.link_bytes_per_s == 0) {
      return Usage("--link: '" + link_ + "' is no rate; say it as in 50GB/s");
    }
  }
  if (rate_.empty()) return Done{};
  const auto rate = ParseByteRate(rate_);
  if (!rate || *rate == 0) {
    return Usage("--rate: '" + rate_ + "' is no rate; say it as in 50MiB/s");
  }
  arguments_.bytes_per_s = *rate;
  return Done{};
}

ClientResult<Done> Grammar::CheckNameAndFile() const {
  const std::string& verb = arguments_.verb;
  if (verb == "explain-miss" && arguments_.name.empty() == arguments_.file.empty()) {
    return Usage("explain-miss: name a corpus, or a file with --text");
  }
  const int evicted = (arguments_.name.empty() ? 0 : 1) + (arguments_.all ? 1 : 0) +
                      (arguments_.to_free_bytes == 0 ? 0 : 1);
  if (verb == "evict" && evicted != 1) {
    return Usage("evict: say one of a corpus, --all and --to-free SIZE");
  }
  const WordKind words = words_of_verb_.at(verb);
  const bool optional = words == WordKind::kNone || words == WordKind::kFiles ||
                        verb == "explain-miss" || verb == "evict";
  if (!optional && arguments_.name.empty()) return Usage(verb + ": the name is empty");
  return Done{};
}

ClientResult<Done> Grammar::ReadTtl() {
  if (ttl_.empty()) return Done{};
  if (ttl_ == "never") {
    arguments_.ttl_never = true;
    return Done{};
  }
  arguments_.ttl = ParseDuration(ttl_);
  if (!arguments_.ttl) {
    return Usage("--ttl: '" + ttl_ + "' is no time; say it as in 90m, 12h or 30d, or never");
  }
  if (arguments_.ttl->count() == 0) {
    return Usage("--ttl: 0 would expire at once; say never to keep it for ever");
  }
  return Done{};
}

ClientResult<Done> Grammar::Finish() {
  arguments_.output = ParseOutputMode(output_).value_or(OutputMode::kTable);
  if (!timeout_.empty()) {
    arguments_.timeout = ParseDuration(timeout_);
    if (!arguments_.timeout) {
      return Usage("--timeout: '" + timeout_ + "' is no time; say it as in 500ms, 30s or 5m");
    }
  }
  if (!interval_.empty()) {
    arguments_.interval = ParseDuration(interval_);
    if (!arguments_.interval || arguments_.interval->count() == 0) {
      return Usage("--interval: '" + interval_ + "' is no time; say it as in 500ms or 5s");
    }
  }
  auto ttl = ReadTtl();
  if (!ttl.ok()) return ttl.error();
  const std::string& verb = arguments_.verb;
  auto sizes = ReadSizes();
  if (!sizes.ok()) return sizes.error();
  auto named = CheckNameAndFile();
  if (!named.ok()) return named.error();
  if (verb == "rename" && arguments_.new_name.empty())
    return Usage("rename: the new name is empty");
  for (const std::string* text : {&arguments_.name, &arguments_.new_name, &arguments_.question,
                                  &arguments_.kv_format, &arguments_.reason, &arguments_.stdin_name,
                                  &arguments_.json_text_field, &arguments_.model}) {
    if (!IsUtf8(*text)) return Usage(verb + ": a word of the command line is not UTF-8");
  }
  if (verb == "touch" && ttl_.empty() && arguments_.priority.empty()) {
    return Usage("touch: say --ttl, --priority or both");
  }
  if (verb == "ask" && arguments_.question.empty()) return Usage("ask: the question is empty");
  if (verb == "token") {
    const bool good = IsTokenWord(arguments_.name) &&
                      (arguments_.tenant.empty() || IsTokenWord(arguments_.tenant));
    if (!good) {
      return Usage(
          "token: names have 1 to 64 letters, digits, '_' or '-' and begin with a letter "
          "or digit");
    }
  }
  for (const std::string& stop : arguments_.stops) {
    if (stop.empty() || !IsUtf8(stop)) return Usage("--stop: the text is empty or not UTF-8");
  }
  if (arguments_.top_p <= 0) return Usage("--top-p: must be above 0");
  if (verb == "ingest" || verb == "append" || verb == "update" || verb == "plan") {
    if (arguments_.stdin_name.empty()) return Usage("--stdin-name: the name is empty");
    const size_t removed = std::erase(arguments_.paths, "-");
    if (removed > 0) arguments_.read_stdin = true;
    const bool on_paper = verb == "plan" && !arguments_.ranks.empty() && arguments_.plan_tokens > 0;
    if (verb != "update" && !on_paper && arguments_.paths.empty() && !arguments_.read_stdin) {
      return Usage(verb + ": name at least one PATH, or say --stdin");
    }
  }
  return Done{};
}

ParseOutcome Grammar::Parse(const std::vector<std::string>& words) {
  const OutputMode guessed = GuessOutputMode(words);
  const std::string first = FirstWord(words);
  if (!first.empty() && !words_of_verb_.contains(first)) {
    return ParseFailure{Usage("there is no verb '" + first + "'; 'corpusctl --help' lists them"),
                        guessed};
  }
  try {
    app_.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::CallForHelp&) {
    return HelpText{app_.help()};
  } catch (const CLI::CallForVersion& version) {
    return HelpText{std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    const std::string of_verb = first.empty() ? "" : first + " ";
    return ParseFailure{
        Usage(std::string(error.what()) + " (see 'corpusctl " + of_verb + "--help')"), guessed};
  }
  const std::vector<CLI::App*> chosen = app_.get_subcommands();
  if (chosen.empty()) {
    return ParseFailure{Usage("say what to do; 'corpusctl --help' lists the verbs"), guessed};
  }
  arguments_.verb = chosen.front()->get_name();
  auto finished = Finish();
  if (!finished.ok()) return ParseFailure{finished.error(), guessed};
  return arguments_;
}

FlagWord Grammar::DescribeFlag(const CLI::Option& option) const {
  FlagWord flag;
  flag.description = option.get_description();
  flag.takes_value = option.get_items_expected_max() > 0;
  const auto choices = choices_.find(&option);
  if (choices != choices_.end()) flag.choices = choices->second;
  return flag;
}

CommandWords Grammar::Describe() const {
  CommandWords words;
  const auto add_flags = [this](const CLI::App& app, std::vector<FlagWord>& flags) {
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_positional()) continue;
      FlagWord flag = DescribeFlag(*option);
      for (const std::string& name : option->get_snames()) {
        flag.name = "-" + name;
        flags.push_back(flag);
      }
      for (const std::string& name : option->get_lnames()) {
        flag.name = "--" + name;
        flags.push_back(flag);
      }
    }
  };
  add_flags(app_, words.flags);
  for (const CLI::App* app : app_.get_subcommands([](const CLI::App*) { return true; })) {
    VerbWord verb;
    verb.name = app->get_name();
    verb.description = app->get_description();
    verb.words = words_of_verb_.at(verb.name);
    add_flags(*app, verb.flags);
    words.verbs.push_back(std::move(verb));
  }
  return words;
}

ParseOutcome ParseCommandLine(const std::vector<std::string>& words) {
  Grammar grammar;
  return grammar.Parse(words);
}

CommandWords DescribeCommands() {
  const Grammar grammar;
  return grammar.Describe();
}

}  // namespace corpusd::ctl
