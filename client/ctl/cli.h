// client/ctl/cli.h -- the grammar of corpusctl's command line: verbs, flags, help. CLI11 is
// known to cli.cc and its grammar.h alone, and its exceptions end here. One thread.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "client/client_error.h"
#include "client/ctl/arguments.h"
#include "client/ctl/completion.h"

namespace corpusd::ctl {

// --help and --version: text to print before leaving with 0.
struct HelpText {
  std::string text;
};

struct ParseFailure {
  ClientError error;
  OutputMode output;  // as far as it could be told
};

using ParseOutcome = std::variant<Arguments, HelpText, ParseFailure>;

// words: without the program's name.
ParseOutcome ParseCommandLine(const std::vector<std::string>& words);

// The verbs and flags, for the completion scripts.
CommandWords DescribeCommands();

}  // namespace corpusd::ctl
