// client/ctl/exit_code.h -- the exit codes of corpusctl, and the one place where an error's stable
// name becomes one. Scripts depend on the numbers: they are never changed. Pure; any thread.
#pragma once

#include <span>
#include <string_view>

namespace corpusd::ctl {

enum ExitCode : int {
  kExitOk = 0,
  kExitOther = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitNotReady = 4,
  kExitRetryable = 5,
  kExitDenied = 6,
  kExitUnreachable = 7,
  kExitSpace = 8,
  kExitNothingToDo = 9,
  kExitIntegrity = 10,
  kExitTimeout = 124,
  kExitInterrupted = 130,
};

struct ExitCodeRule {
  std::string_view code_text;
  ExitCode exit_code;
};

// Every name that has a rule, for the test that walks them.
std::span<const ExitCodeRule> ExitCodeRules();

// RETURNS kExitOther for a name without a rule, such as one of a newer daemon.
ExitCode ExitCodeOf(std::string_view code_text);

// A job keeps its error as "code_text: sentence". RETURNS that name, "job_failed" if the text has
// none.
std::string_view CodeTextOfJobError(std::string_view error);

}  // namespace corpusd::ctl
