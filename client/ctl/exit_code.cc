#include "client/ctl/exit_code.h"

#include <array>

namespace corpusd::ctl {
namespace {

constexpr std::array kRules = {
    ExitCodeRule{"ok", kExitOk},
    // From the daemon.
    ExitCodeRule{"not_found", kExitNotFound},
    ExitCodeRule{"already_exists", kExitOther},
    ExitCodeRule{"invalid_argument", kExitUsage},
    ExitCodeRule{"failed_precondition", kExitOther},
    ExitCodeRule{"resource_exhausted", kExitSpace},
    ExitCodeRule{"aborted", kExitRetryable},
    ExitCodeRule{"corruption", kExitIntegrity},
    ExitCodeRule{"io_error", kExitOther},
    ExitCodeRule{"device_error", kExitOther},
    ExitCodeRule{"unavailable", kExitRetryable},
    ExitCodeRule{"cancelled", kExitOther},
    ExitCodeRule{"deadline_exceeded", kExitTimeout},
    ExitCodeRule{"unimplemented", kExitUsage},
    ExitCodeRule{"internal", kExitOther},
    ExitCodeRule{"permission_denied", kExitDenied},
    ExitCodeRule{"not_ready", kExitNotReady},
    // From the client library.
    ExitCodeRule{"unreachable", kExitUnreachable},
    ExitCodeRule{"interrupted", kExitInterrupted},
    ExitCodeRule{"protocol", kExitOther},
    // From corpusctl itself.
    ExitCodeRule{"usage", kExitUsage},
    ExitCodeRule{"nothing_to_do", kExitNothingToDo},
    ExitCodeRule{"declined", kExitOther},
    ExitCodeRule{"unhealthy", kExitOther},
    ExitCodeRule{"job_failed", kExitOther},
};

}  // namespace

std::span<const ExitCodeRule> ExitCodeRules() { return kRules; }

ExitCode ExitCodeOf(std::string_view code_text) {
  for (const ExitCodeRule& rule : kRules) {
    if (rule.code_text == code_text) return rule.exit_code;
  }
  return kExitOther;
}

std::string_view CodeTextOfJobError(std::string_view error) {
  const std::string_view code_text = error.substr(0, error.find(": "));
  for (const ExitCodeRule& rule : kRules) {
    if (rule.code_text == code_text && rule.exit_code != kExitOk) return rule.code_text;
  }
  return "job_failed";
}

}  // namespace corpusd::ctl
