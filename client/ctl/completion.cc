#include "client/ctl/completion.h"

#include <algorithm>
#include <string_view>

namespace corpusd::ctl {
namespace {

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string FlagNames(const std::vector<FlagWord>& flags) {
  std::vector<std::string> names;
  for (const FlagWord& flag : flags) names.push_back(flag.name);
  return Join(names);
}

// In single quotes for a POSIX shell.
std::string ShellQuoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

// In single quotes for fish, where a backslash escapes.
std::string FishQuoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

// "name:description" with the colons of both escaped, as _describe wants it.
std::string ZshEntry(const std::string& name, const std::string& description) {
  std::string entry;
  for (const char c : name + "\n" + description) {
    if (c == ':') entry += '\\';
    entry += c == '\n' ? ':' : c;
  }
  return ShellQuoted(entry);
}

std::string VerbNames(const CommandWords& words) {
  std::vector<std::string> names;
  for (const VerbWord& verb : words.verbs) names.push_back(verb.name);
  return Join(names);
}

// "-o|--output|--socket": the global flags after which a value comes, as a case pattern.
std::string ValueFlagPattern(const CommandWords& words) {
  std::string pattern;
  for (const FlagWord& flag : words.flags) {
    if (flag.takes_value) pattern += (pattern.empty() ? "" : "|") + flag.name;
  }
  return pattern;
}

// What a shell runs to get the words after a verb: one of the functions that each script defines.
std::string_view WordFunction(WordKind kind, bool first) {
  switch (kind) {
    case WordKind::kNone:
      return "";
    case WordKind::kCorpus:
      return first ? "corpora" : "";
    case WordKind::kCorpusThenFiles:
      return first ? "corpora" : "files";
    case WordKind::kFiles:
      return "files";
    case WordKind::kJob:
      return first ? "jobs" : "";
    case WordKind::kCorpusOrJob:
      return first ? "corpora_and_jobs" : "";
    case WordKind::kShell:
      return first ? "shells" : "";
  }
  return "";
}

// Cases `verb:flag)` of a POSIX-like shell, for flags with a closed set of values. A global flag is
// one of every verb, and of none.
std::string ChoiceCases(const CommandWords& words, std::string_view action) {
  std::string text;
  const auto add = [&](const std::string& verb, const FlagWord& flag) {
    if (flag.choices.empty()) return;
    text += "    " + verb + ":" + flag.name + ") ";
    text += action;
    text += " " + Join(flag.choices) + "; return ;;\n";
  };
  for (const VerbWord& verb : words.verbs) {
    for (const FlagWord& flag : verb.flags) add(verb.name, flag);
  }
  for (const FlagWord& flag : words.flags) add("*", flag);
  return text;
}

// Cases for flags whose value is anything: file names are the best guess.
std::string FileCases(const CommandWords& words, std::string_view action) {
  std::string text;
  const auto add = [&](const std::string& verb, const FlagWord& flag) {
    if (!flag.takes_value || !flag.choices.empty()) return;
    text += "    " + verb + ":" + flag.name + ") ";
    text += action;
    text += "; return ;;\n";
  };
  for (const VerbWord& verb : words.verbs) {
    for (const FlagWord& flag : verb.flags) add(verb.name, flag);
  }
  for (const FlagWord& flag : words.flags) add("*", flag);
  return text;
}

// Cases `verb)` that set `flags`, `first` and `rest`.
std::string VerbCases(const CommandWords& words) {
  std::string text;
  for (const VerbWord& verb : words.verbs) {
    text += "    " + verb.name + ") flags=\"" + FlagNames(verb.flags) + "\" first=\"";
    text += WordFunction(verb.words, true);
    text += "\" rest=\"";
    text += WordFunction(verb.words, false);
    text += "\" ;;\n";
  }
  return text;
}

std::string ValueFlagsOfVerbs(const CommandWords& words) {
  std::string pattern = ValueFlagPattern(words);
  std::vector<std::string> seen;
  for (const VerbWord& verb : words.verbs) {
    for (const FlagWord& flag : verb.flags) {
      if (!flag.takes_value || std::find(seen.begin(), seen.end(), flag.name) != seen.end()) {
        continue;
      }
      seen.push_back(flag.name);
      pattern += "|" + flag.name;
    }
  }
  return pattern;
}

}  // namespace

std::string BashCompletion(const CommandWords& words) {
  std::string script =
      R"sh(# bash completion for corpusctl; load it with: source <(corpusctl completion bash)
_corpusctl_names() {
  local socket=()
  [[ -n "$_corpusctl_socket" ]] && socket=(--socket "$_corpusctl_socket")
  corpusctl "${socket[@]}" --timeout 2s "$1" -o name 2>/dev/null
}
_corpusctl_words() {
  mapfile -t COMPREPLY < <(compgen -W "$*" -- "$current")
}
_corpusctl_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
_corpusctl_kind() {
  case "$1" in
    corpora) _corpusctl_words "$(_corpusctl_names ls)" ;;
    jobs) _corpusctl_words "$(_corpusctl_names jobs)" ;;
    corpora_and_jobs) _corpusctl_words "$(_corpusctl_names ls) $(_corpusctl_names jobs)" ;;
    files) _corpusctl_files ;;
    shells) _corpusctl_words bash zsh fish ;;
  esac
}
_corpusctl() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="" verb="" words=0 i
  local flags="" first="" rest="" _corpusctl_socket=""
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${COMP_WORDS[i]}" in
)sh";
  script += "      --socket) _corpusctl_socket=\"${COMP_WORDS[i + 1]}\"; ((i++)) ;;\n";
  script += "      " + ValueFlagsOfVerbs(words) + ") ((i++)) ;;\n";
  script += R"sh(      -*) ;;
      *) if [[ -z "$verb" ]]; then verb="${COMP_WORDS[i]}"; else ((words++)); fi ;;
    esac
  done
  previous="${COMP_WORDS[COMP_CWORD - 1]}"
  case "$verb:$previous" in
)sh";
  script += ChoiceCases(words, "_corpusctl_words");
  script += FileCases(words, "_corpusctl_files");
  script += "  esac\n  case \"$verb\" in\n";
  script += VerbCases(words);
  script += "  esac\n";
  script += "  if [[ \"$current\" == -* ]]; then\n    _corpusctl_words \"$flags " +
            FlagNames(words.flags) + "\"\n";
  script += "  elif [[ -z \"$verb\" ]]; then\n    _corpusctl_words \"" + VerbNames(words) + "\"\n";
  script += R"sh(  elif ((words == 0)); then
    _corpusctl_kind "$first"
  else
    _corpusctl_kind "$rest"
  fi
}
complete -F _corpusctl corpusctl
)sh";
  return script;
}

std::string ZshCompletion(const CommandWords& words) {
  std::string script = R"sh(#compdef corpusctl
# zsh completion for corpusctl: save it as _corpusctl in a folder of $fpath, or load it with
# source <(corpusctl completion zsh)
_corpusctl_names() {
  local -a socket
  [[ -n "$_corpusctl_socket" ]] && socket=(--socket "$_corpusctl_socket")
  corpusctl $socket --timeout 2s "$1" -o name 2>/dev/null
}
_corpusctl_kind() {
  case "$1" in
    corpora) compadd -- ${(f)"$(_corpusctl_names ls)"} ;;
    jobs) compadd -- ${(f)"$(_corpusctl_names jobs)"} ;;
    corpora_and_jobs) compadd -- ${(f)"$(_corpusctl_names ls; _corpusctl_names jobs)"} ;;
    files) _files ;;
    shells) compadd -- bash zsh fish ;;
  esac
}
_corpusctl() {
  local verb="" previous="" flags="" first="" rest="" _corpusctl_socket="" i=0 count=0
  local -a entries
  for ((i = 2; i < CURRENT; i++)); do
    case "${words[i]}" in
)sh";
  script += "      --socket) _corpusctl_socket=\"${words[i + 1]}\"; ((i++)) ;;\n";
  script += "      " + ValueFlagsOfVerbs(words) + ") ((i++)) ;;\n";
  script += R"sh(      -*) ;;
      *) if [[ -z "$verb" ]]; then verb="${words[i]}"; else ((count++)); fi ;;
    esac
  done
  previous="${words[CURRENT - 1]}"
  case "$verb:$previous" in
)sh";
  script += ChoiceCases(words, "compadd --");
  script += FileCases(words, "_files");
  script += "  esac\n  case \"$verb\" in\n";
  script += VerbCases(words);
  script += "  esac\n";
  script += "  if [[ \"${words[CURRENT]}\" == -* ]]; then\n    compadd -- ${=flags} " +
            FlagNames(words.flags) + "\n";
  script += "  elif [[ -z \"$verb\" ]]; then\n    entries=(\n";
  for (const VerbWord& verb : words.verbs) {
    script += "      " + ZshEntry(verb.name, verb.description) + "\n";
  }
  script += R"sh(    )
    _describe 'verb' entries
  elif ((count == 0)); then
    _corpusctl_kind "$first"
  else
    _corpusctl_kind "$rest"
  fi
}
if [[ "$funcstack[1]" == _corpusctl ]]; then
  _corpusctl "$@"
else
  compdef _corpusctl corpusctl
fi
)sh";
  return script;
}

std::string FishCompletion(const CommandWords& words) {
  std::string script =
      "# fish completion for corpusctl; load it with: corpusctl completion fish | source\n"
      "complete -c corpusctl -f\n";
  const auto add_flag = [&script](const std::string& condition, const FlagWord& flag) {
    script += "complete -c corpusctl" + condition;
    script +=
        flag.name.starts_with("--") ? " -l " + flag.name.substr(2) : " -s " + flag.name.substr(1);
    if (!flag.choices.empty()) {
      script += " -x -a " + FishQuoted(Join(flag.choices));
    } else if (flag.takes_value) {
      script += " -r -F";
    }
    script += " -d " + FishQuoted(flag.description) + "\n";
  };
  for (const FlagWord& flag : words.flags) add_flag("", flag);
  const std::string no_verb =
      " -n " + FishQuoted("not __fish_seen_subcommand_from " + VerbNames(words));
  for (const VerbWord& verb : words.verbs) {
    script += "complete -c corpusctl" + no_verb + " -a " + verb.name + " -d " +
              FishQuoted(verb.description) + "\n";
    const std::string with_verb = " -n " + FishQuoted("__fish_seen_subcommand_from " + verb.name);
    for (const FlagWord& flag : verb.flags) add_flag(with_verb, flag);
    const std::string_view kind = WordFunction(verb.words, true);
    const std::string corpora = "(corpusctl --timeout 2s ls -o name 2>/dev/null)";
    const std::string jobs = "(corpusctl --timeout 2s jobs -o name 2>/dev/null)";
    std::string values;
    if (kind == "corpora" || kind == "corpora_and_jobs") values = corpora;
    if (kind == "corpora_and_jobs") values += " ";
    if (kind == "jobs" || kind == "corpora_and_jobs") values += jobs;
    if (kind == "shells") values = "bash zsh fish";
    if (kind == "files") script += "complete -c corpusctl" + with_verb + " -F\n";
    if (values.empty()) continue;
    const bool files = verb.words == WordKind::kCorpusThenFiles;
    script += "complete -c corpusctl" + with_verb + (files ? " -F" : "") + " -a " +
              FishQuoted(values) + "\n";
  }
  return script;
}

}  // namespace corpusd::ctl
