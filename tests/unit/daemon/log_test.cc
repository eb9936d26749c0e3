#include "daemon/log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace corpusd {
namespace {

TEST(Log, TextQuotesWhatIsNotPlain) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, "query",
                          {{"corpus", "a-b"}, {"error", "no \"x\"\n"}, {"ms", 1.5}, {"n", 7}}),
            R"(query corpus=a-b error="no \"x\"\n" ms=1.5 n=7)");
}

TEST(Log, JsonLineParses) {
  const std::string line =
      FormatLogLine(LogFormat::kJson, "job", {{"id", 3}, {"error", "caf\xE9 \"\n"}, {"ok", true}});
  const auto object = nlohmann::json::parse("{" + line);
  EXPECT_EQ(object["event"], "job");
  EXPECT_EQ(object["id"], 3);
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace corpusd
