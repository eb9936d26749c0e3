#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "client/ctl/output_format.h"
#include "client/ctl/progress_line.h"
#include "client/ctl/table_printer.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"
#include "client/ctl/yaml_writer.h"
#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

using Json = nlohmann::ordered_json;

TEST(CtlUnits, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1288490189), "1.2 GiB");
  EXPECT_EQ(FormatBytes(123ull << 20), "123 MiB");
  EXPECT_EQ(FormatBytes((1ull << 20) - 1), "1.0 MiB");  // not "1024 KiB"
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "16.0 EiB");
}

TEST(CtlUnits, Durations) {
  EXPECT_EQ(FormatDuration(0.44), "0.4s");
  EXPECT_EQ(FormatDuration(12), "12s");
  EXPECT_EQ(FormatDuration(59.7), "1m00s");
  EXPECT_EQ(FormatDuration(200), "3m20s");
  EXPECT_EQ(FormatDuration(7500), "2h05m");
  EXPECT_EQ(FormatDuration(3 * 86400 + 4 * 3600), "3d4h");
  EXPECT_EQ(FormatDuration(-1), "-");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::quiet_NaN()), "-");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(FormatMilliseconds(8.314), "8.31 ms");
  EXPECT_EQ(FormatMilliseconds(412.4), "412 ms");
  EXPECT_EQ(FormatMilliseconds(2400), "2.4s");
}

TEST(CtlUnits, CountsRatesAndTimes) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(12345678), "12,345,678");
  EXPECT_EQ(FormatRate(3.21), "3.2");
  EXPECT_EQ(FormatRate(1234.4), "1,234");
  EXPECT_EQ(FormatTimestamp(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(FormatTimestamp(1790000000999), "2026-09-21T14:13:20Z");
  EXPECT_EQ(FormatAge(0, 5000), "-");
  EXPECT_EQ(FormatAge(5000, 5400), "now");
  EXPECT_EQ(FormatAge(5000 + 2ll * 86400 * 1000, 5100), "in 2d");
  EXPECT_EQ(FormatAge(1000, 61000), "1m ago");
  EXPECT_EQ(FormatAge(1000, 1000 + 2 * 3600 * 1000), "2h ago");
  EXPECT_EQ(FormatAge(1000 + 3ll * 86400 * 1000, 1000), "in 3d");
}

TEST(CtlUnits, ParsesDurations) {
  using std::chrono::milliseconds;
  EXPECT_EQ(ParseDuration("30s"), milliseconds(30000));
  EXPECT_EQ(ParseDuration("5"), milliseconds(5000));
  EXPECT_EQ(ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(ParseDuration("1h30m"), milliseconds(5400000));
  EXPECT_EQ(ParseDuration("1.5h"), milliseconds(5400000));
  EXPECT_EQ(ParseDuration("30d"), milliseconds(30ll * 86400000));
  EXPECT_EQ(ParseDuration("2w"), milliseconds(14ll * 86400000));
  EXPECT_EQ(ParseDuration("0"), milliseconds(0));
  for (const char* wrong : {"", "-1s", "s", "1x", "1h30", "1 h", "1s ", "never", ".", "9999999999d",
                            "99999999999999999999s", "1..5s"}) {
    EXPECT_FALSE(ParseDuration(wrong)) << wrong;
  }
}

TEST(CtlText, KnowsUtf8) {
  EXPECT_TRUE(IsUtf8("plain"));
  EXPECT_TRUE(IsUtf8("ä€😀"));
  EXPECT_FALSE(IsUtf8("\xC0\x80"));          // overlong
  EXPECT_FALSE(IsUtf8("\xE0\x80\x80"));      // overlong
  EXPECT_FALSE(IsUtf8("\xED\xA0\x80"));      // surrogate
  EXPECT_FALSE(IsUtf8("\xF4\x90\x80\x80"));  // beyond the last
  EXPECT_FALSE(IsUtf8("a\xE2\x82"));         // cut off
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "b"),
            "a\uFFFDb");
}

TEST(CtlText, NothingReachesTheTerminalRaw) {
  EXPECT_EQ(EscapeForCell("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
  EXPECT_EQ(EscapeForCell("\xC2\x9B"
                          "5n"),
            "\\x9b5n");  // a C1 control is one too
  EXPECT_EQ(EscapeForTerminal("a\n\tb\x07"), "a\n\tb\\x07");
}

TEST(CtlText, MeasuresColumns) {
  EXPECT_EQ(DisplayWidth("abc"), 3u);
  EXPECT_EQ(DisplayWidth("ä"), 1u);
  EXPECT_EQ(DisplayWidth("漢字"), 4u);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1u);
  EXPECT_EQ(TruncateToWidth("漢字x", 3), "漢");
  EXPECT_EQ(TruncateToWidth("abc", 9), "abc");
}

TEST(CtlTable, AlignsAndStaysPlain) {
  TablePrinter table({{"NAME"}, {"TOKENS", Align::kRight}, {"STATE", Align::kLeft, true}});
  table.AddRow({"a", "1,234", "ready"});
  table.AddRow({"漢字", "7"});
  std::ostringstream out;
  table.Print(out, {});
  EXPECT_EQ(out.str(),
            "NAME  TOKENS  STATE\n"
            "a      1,234  ready\n"
            "漢字       7\n");
}

TEST(CtlTable, OnATerminalHasARuleAndColours) {
  TablePrinter table({{"S", Align::kLeft, true}});
  table.AddRow({"failed"});
  table.AddRow({"\x1b[2J"});
  std::ostringstream out;
  table.Print(out, {.rule = true, .color = true});
  EXPECT_EQ(out.str(),
            "\x1b[1mS\x1b[0m\n"
            "───────\n"
            "\x1b[31mfailed\x1b[0m\n"
            "\\x1b[2J\n");
}

TEST(CtlTable, Fields) {
  std::ostringstream out;
  PrintFields(out, {{"name", "a"}, {"state", "ready"}}, {});
  EXPECT_EQ(out.str(), "name:  a\nstate: ready\n");
}

TEST(CtlYaml, WritesBlocks) {
  const Json value = {{"name", "filings"},
                      {"tokens", 12},
                      {"pinned", nullptr},
                      {"model", {{"name", "SmolLM2 135M"}, {"digest", "sha256:ab"}}},
                      {"sources", {{{"path", "a/b.txt"}, {"tokens", 3}}, {{"path", "- x"}}}},
                      {"none", Json::array()},
                      {"ids", {1, 2}}};
  EXPECT_EQ(ToYaml(value),
            "name: filings\n"
            "tokens: 12\n"
            "pinned: null\n"
            "model:\n"
            "  name: \"SmolLM2 135M\"\n"
            "  digest: \"sha256:ab\"\n"
            "sources:\n"
            "  - path: a/b.txt\n"
            "    tokens: 3\n"
            "  - path: \"- x\"\n"
            "none: []\n"
            "ids:\n"
            "  - 1\n"
            "  - 2\n");
  EXPECT_EQ(ToYaml(Json::array()), "[]\n");
  EXPECT_EQ(ToYaml(Json("two\nlines")), "\"two\\nlines\"\n");
}

TEST(CtlYaml, QuotesWhatCouldBeSomethingElse) {
  for (const char* text : {"true", "No", "null", "y", "", "1.5", "-", "~", "a: b", "a #b", "*a",
                           "2026-11-23T12:58:16Z", "é"}) {
    EXPECT_EQ(ToYaml(Json(text)).front(), '"') << text;
  }
  for (const char* text : {"ready", "cpu", "a.txt", "x-y_z/1"}) {
    EXPECT_EQ(ToYaml(Json(text)), std::string(text) + "\n");
  }
}

TEST(CtlOutput, Modes) {
  for (const std::string& name : OutputModeNames()) EXPECT_TRUE(ParseOutputMode(name)) << name;
  EXPECT_EQ(ParseOutputMode("jsonl"), OutputMode::kJsonLines);
  EXPECT_FALSE(ParseOutputMode("xml"));
  std::ostringstream out;
  PrintStructured(out, OutputMode::kJsonLines, Json{{{"a", 1}}, {{"a", 2}}});
  EXPECT_EQ(out.str(), "{\"a\":1}\n{\"a\":2}\n");
  std::ostringstream broken;
  PrintStructured(broken, OutputMode::kJsonLines, Json{{"a", "\xFF"}});
  EXPECT_EQ(broken.str(), "{\"a\":\"\uFFFD\"}\n");
}

TEST(CtlOutput, Errors) {
  const ClientError error{1, "not_found", "corpus 'x' does not exist"};
  std::ostringstream plain;
  EXPECT_EQ(PrintError(plain, OutputMode::kTable, error), 3);
  EXPECT_EQ(plain.str(), "corpusctl: corpus 'x' does not exist\n");
  std::ostringstream json;
  EXPECT_EQ(PrintError(json, OutputMode::kJson, error), 3);
  EXPECT_EQ(json.str(),
            "{\"error\":{\"code\":\"not_found\",\"message\":\"corpus 'x' does not exist\","
            "\"exit_code\":3}}\n");
}

ProgressSample Sample() {
  ProgressSample sample;
  sample.label = "filings";
  sample.state = "running";
  sample.done = 12345;
  sample.total = 28000;
  sample.per_second = 1234;
  sample.eta_s = 200;
  sample.written_bytes = 12ull << 20;
  return sample;
}

TEST(CtlProgress, Plain) {
  EXPECT_EQ(FormatProgressPlain(Sample()),
            "filings: 44% 12,345/28,000 tok, 1,234 tok/s, ETA 3m20s, 12.0 MiB written");
  ProgressSample unknown;
  unknown.label = "x";
  unknown.state = "queued";
  EXPECT_EQ(FormatProgressPlain(unknown), "x: queued 0 tok");
}

TEST(CtlProgress, BarFitsEveryWidth) {
  for (int width = 0; width < 200; ++width) {
    EXPECT_LE(DisplayWidth(FormatProgressBar(Sample(), width)), static_cast<size_t>(width));
  }
  const std::string line = FormatProgressBar(Sample(), 120);
  EXPECT_EQ(line.substr(0, 41), "filings  [#############.................]");
  EXPECT_NE(line.find(" 44%  12,345/28,000 tok  1,234 tok/s  ETA 3m20s  12.0 MiB written"),
            std::string::npos)
      << line;
  ProgressSample over = Sample();
  over.done = over.total * 2;
  EXPECT_NE(FormatProgressBar(over, 120).find("100%"), std::string::npos);
}

TEST(CtlProgress, PlainLinesAreSpaced) {
  std::ostringstream err;
  ProgressLine line(err, ProgressMode::kPlain, 80);
  ProgressSample sample = Sample();
  sample.done = 0;
  line.Update(sample, 1000);  // the first
  sample.done = 100;
  line.Update(sample, 1100);  // too soon, too little
  sample.done = 2800;
  line.Update(sample, 1200);  // a tenth
  line.Update(sample, 3100);  // not two seconds since
  line.Update(sample, 3200);  // two seconds
  const std::string text = err.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
}

TEST(CtlProgress, BarRewritesOneLineAndNoneIsSilent) {
  std::ostringstream err;
  {
    ProgressLine line(err, ProgressMode::kBar, 80);
    line.Update(Sample(), 1);
    line.Update(Sample(), 2);
  }
  const std::string text = err.str();
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(text.front(), '\r');
  EXPECT_TRUE(text.ends_with("\r\x1b[K"));
  std::ostringstream silent;
  ProgressLine none(silent, ProgressMode::kNone, 80);
  none.Update(Sample(), 1);
  none.Clear();
  EXPECT_EQ(silent.str(), "");
}

}  // namespace
}  // namespace corpusd::ctl
