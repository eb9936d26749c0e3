#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "client/ctl/exit_code.h"

namespace corpusd::ctl {
namespace {

// The promise of the command line, written out a second time.
const std::map<std::string, int>& Promised() {
  static const std::map<std::string, int> kPromised = {
      {"ok", 0},
      {"not_found", 3},
      {"already_exists", 1},
      {"invalid_argument", 2},
      {"failed_precondition", 1},
      {"resource_exhausted", 8},
      {"aborted", 5},
      {"corruption", 10},
      {"io_error", 1},
      {"device_error", 1},
      {"unavailable", 5},
      {"cancelled", 1},
      {"deadline_exceeded", 124},
      {"unimplemented", 2},
      {"internal", 1},
      {"permission_denied", 6},
      {"not_ready", 4},
      {"unreachable", 7},
      {"interrupted", 130},
      {"protocol", 1},
      {"usage", 2},
      {"nothing_to_do", 9},
      {"declined", 1},
      {"unhealthy", 1},
      {"job_failed", 1},
  };
  return kPromised;
}

TEST(CtlExitCode, EveryRuleIsAsPromised) {
  std::set<std::string> seen;
  for (const ExitCodeRule& rule : ExitCodeRules()) {
    const std::string name(rule.code_text);
    EXPECT_TRUE(seen.insert(name).second) << name << " has two rules";
    ASSERT_TRUE(Promised().contains(name)) << name;
    EXPECT_EQ(rule.exit_code, Promised().at(name)) << name;
    EXPECT_EQ(ExitCodeOf(name), Promised().at(name)) << name;
  }
  EXPECT_EQ(seen.size(), Promised().size());
}

TEST(CtlExitCode, EveryCodeOfTheWireHasARule) {
  std::set<std::string> ruled;
  for (const ExitCodeRule& rule : ExitCodeRules()) ruled.insert(std::string(rule.code_text));
#define X(name, number, text, http) EXPECT_TRUE(ruled.contains(text)) << text;
#include "store/base/status_codes.inc"
#undef X
}

TEST(CtlExitCode, AnUnknownNameIsOther) {
  EXPECT_EQ(ExitCodeOf("something_new"), 1);
  EXPECT_EQ(ExitCodeOf(""), 1);
}

TEST(CtlExitCode, AJobErrorCarriesItsCode) {
  EXPECT_EQ(CodeTextOfJobError("resource_exhausted: no room"), "resource_exhausted");
  EXPECT_EQ(CodeTextOfJobError("corruption: block 3 of 'x': bad sum"), "corruption");
  EXPECT_EQ(CodeTextOfJobError("something broke"), "job_failed");
  EXPECT_EQ(CodeTextOfJobError("ok: no"), "job_failed");
  EXPECT_EQ(CodeTextOfJobError(""), "job_failed");
}

}  // namespace
}  // namespace corpusd::ctl
