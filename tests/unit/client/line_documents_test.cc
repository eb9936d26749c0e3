// What cuts files by lines: logs, JSON lines, and the labels that lead back to the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "client/sources/json_lines.h"
#include "client/sources/line_cutter.h"
#include "client/sources/line_label.h"
#include "client/sources/log_cutter.h"
#include "client/sources/skip_log.h"
#include "client/sources/source_kind.h"
#include "recorded_documents.h"

namespace corpusd::sources {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::vector<std::string> Lines(std::string_view text, size_t part_bytes_max, size_t piece_bytes) {
  std::vector<std::string> lines;
  LineCutter cutter(part_bytes_max, [&](const LinePart& part) {
    lines.push_back(std::to_string(part.number) + (part.starts ? "^" : "") +
                    std::string(part.text) + (part.ends ? "$" : ""));
    return true;
  });
  while (!text.empty()) {
    EXPECT_TRUE(cutter.Write(text.substr(0, piece_bytes)));
    text.remove_prefix(std::min(piece_bytes, text.size()));
  }
  EXPECT_TRUE(cutter.Finish());
  return lines;
}

TEST(LineCutter, GivesLinesWhateverThePieces) {
  for (const size_t piece_bytes : {1, 2, 3, 100}) {
    EXPECT_THAT(Lines("a\n\nbc\r\nd", 10, piece_bytes),
                ElementsAre("1^a$", "2^$", "3^bc$", "4^d$"));
    EXPECT_THAT(Lines("a\n", 10, piece_bytes), ElementsAre("1^a$"));
    EXPECT_THAT(Lines("", 10, piece_bytes), ElementsAre());
    EXPECT_THAT(Lines("abcdefg\nh", 3, piece_bytes), ElementsAre("1^abc", "1def", "1g$", "2^h$"));
  }
}

TEST(LineLabel, LeadsBackToTheFile) {
  const auto back = [](std::string_view label, uint64_t first, uint64_t last) {
    const FileLines lines = LinesInFile(label, first, last);
    return std::string(lines.path) + ":" + std::to_string(lines.first) + "-" +
           std::to_string(lines.last);
  };
  EXPECT_EQ(LinesLabel("app.log", 901, 1800), "app.log#L901-L1800");
  EXPECT_EQ(back("app.log#L901-L1800", 3, 10), "app.log:903-910");
  EXPECT_EQ(back("app.log#L901-L1800", 1, 5000), "app.log:901-1800");  // never beyond it
  EXPECT_EQ(back(LineLabel("d.jsonl", 12), 1, 4), "d.jsonl:12-12");
  EXPECT_EQ(back("app.log#L901-L1800", 0, 0), "app.log#L901-L1800:0-0");  // not known
  for (const char* label : {"a.txt", "m.mbox#17 L12", "#L1", "a#L", "a#L0", "a#L1-", "a#L1-L",
                            "a#L5-L4", "a#L1-L2x", "a#Lx", "a#L99999999999999999999"}) {
    EXPECT_EQ(back(label, 3, 9), std::string(label) + ":3-9");
  }
}

TEST(LogCutter, CutsBetweenLinesAndNamesThem) {
  std::string log;
  std::vector<std::string> lines;
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    lines.push_back("line " + std::to_string(i) + std::string(random() % 120, 'x'));
    log += lines.back() + "\n";
  }
  for (const size_t piece_bytes : {size_t{777}, log.size()}) {
    RecordedDocuments documents;
    LogCutter cutter("app.log", documents);
    ASSERT_TRUE(Feed(cutter, log, piece_bytes));
    std::string joined;
    for (const auto& [label, text] : documents.documents()) {
      EXPECT_LE(text.size(), LogCutter::kDocumentBytes);
      // Every line is found again.
      std::istringstream stream(text);
      std::string line;
      for (uint64_t number = 1; std::getline(stream, line); ++number) {
        const FileLines in_file = LinesInFile(label, number, number);
        ASSERT_EQ(in_file.path, "app.log");
        ASSERT_EQ(lines.at(in_file.first - 1), line);
      }
      joined += text;
    }
    EXPECT_EQ(joined, log);
    EXPECT_GE(documents.documents().size(), 3u);
  }
}

TEST(LogCutter, WhatIsAppendedChangesTheLastDocumentOnly) {
  std::string log;
  for (int i = 0; i < 4000; ++i)
    log += "an ordinary line of a log, number " + std::to_string(i) + "\n";
  RecordedDocuments before;
  LogCutter first("app.log", before);
  ASSERT_TRUE(Feed(first, log, 4096));
  RecordedDocuments after;
  LogCutter second("app.log", after);
  ASSERT_TRUE(Feed(second, log + "one more\n", 4096));
  ASSERT_EQ(before.documents().size(), after.documents().size());
  for (size_t i = 0; i + 1 < before.documents().size(); ++i) {
    EXPECT_EQ(before.documents()[i], after.documents()[i]);
  }
  EXPECT_NE(before.documents().back(), after.documents().back());
}

TEST(LogCutter, AnEndlessLineIsCut) {
  RecordedDocuments documents;
  LogCutter cutter("app.log", documents);
  ASSERT_TRUE(Feed(cutter, "short\n" + std::string(size_t{5} << 19, 'x'), 65536));
  EXPECT_THAT(documents.labels(),
              ElementsAre("app.log#L1-L1", "app.log#L2-L2", "app.log#L2-L2", "app.log#L2-L2"));
}

TEST(JsonLines, RendersTheWholeObjectOrOneField) {
  const std::string lines =
      "{\"id\": 7, \"title\": \"Caf\\u00e9\", \"tags\": [\"a\", 1], \"in\": {\"deep\": \"text\"}}\n"
      "\n"
      "[1, 2]\n"
      "{\"body\": \"only\"}";
  RecordedDocuments whole;
  SkipLog skips;
  JsonLines reader("d.jsonl", "", whole, skips);
  ASSERT_TRUE(Feed(reader, lines, 5));
  EXPECT_THAT(whole.documents(),
              ElementsAre(Pair("d.jsonl#L1",
                               "id: 7\ntitle: Café\ntags: [\"a\",1]\nin: {\"deep\":"
                               "\"text\"}\n"),
                          Pair("d.jsonl#L3", "[1,2]\n"), Pair("d.jsonl#L4", "body: only\n")));
  EXPECT_EQ(skips.total(), 0u);

  RecordedDocuments field;
  JsonLines deep("d.jsonl", "in.deep", field, skips);
  ASSERT_TRUE(Feed(deep, lines, 4096));
  EXPECT_THAT(field.documents(), ElementsAre(Pair("d.jsonl#L1", "text\n")));
  EXPECT_EQ(skips.count(SkipReason::kNoField), 2u);
}

TEST(JsonLines, SkipsAndCountsWhatIsBroken) {
  RecordedDocuments documents;
  SkipLog skips;
  JsonLines reader("d.jsonl", "", documents, skips);
  const std::string lines = "{\"a\": \n{\"a\": 1}\nnot json\n\"\\ud800\"\n" +
                            std::string(200, '[') + std::string(200, ']') + "\n\"" +
                            std::string(JsonLines::kLineBytesMax, 'x') + "\"\n{\"b\": 2}\n";
  ASSERT_TRUE(Feed(reader, lines, 65536));
  EXPECT_THAT(documents.labels(), ElementsAre("d.jsonl#L2", "d.jsonl#L7"));
  EXPECT_EQ(skips.count(SkipReason::kBadLine), 4u);
  EXPECT_EQ(skips.count(SkipReason::kLongLine), 1u);
  EXPECT_EQ(skips.items().at(0).what, "d.jsonl#L1");
  EXPECT_EQ(skips.Describe(), "skipped 4 lines that are no JSON, 1 line that is too long");
}

TEST(JsonLines, StopsWhenNoMoreIsWanted) {
  RecordedDocuments documents;
  documents.documents_max = 1;
  SkipLog skips;
  JsonLines reader("d.jsonl", "", documents, skips);
  EXPECT_FALSE(reader.Write("{}\n{\"a\":1}\n{\"a\":2}\n"));
  EXPECT_EQ(documents.documents().size(), 2u);
}

TEST(SourceKind, ByNameAndFirstBytes) {
  EXPECT_EQ(PackingOf("/a/x.tar.gz"), Packing::kArchive);
  for (const char* name : {"x.tar", "x.TGZ", "x.tar.xz", "x.tar.zst", "x.tar.bz2", "x.zip"}) {
    EXPECT_EQ(PackingOf(name), Packing::kArchive) << name;
  }
  for (const char* name : {"x.gz", "app.log.1.gz", "x.zip.gz", "x.mbox.xz", "x.txt.zst"}) {
    EXPECT_EQ(PackingOf(name), Packing::kCompressed) << name;
  }
  for (const char* name : {"x", "x.txt", ".gz", ".zip", "zip", "x.docx", "a.tar/x"}) {
    EXPECT_EQ(PackingOf(name), Packing::kNone) << name;
  }
  EXPECT_EQ(UnpackedName("a/app.log.1.gz"), "a/app.log.1");
  EXPECT_EQ(UnpackedName("a.tar.gz!app.log"), "a.tar.gz!app.log");
  for (const char* name :
       {"app.log", "a/APP.LOG", "app.log.1", "app.log-20260101", "z.zip!a.log"}) {
    EXPECT_EQ(KindOf(name, "text"), SourceKind::kLog) << name;
  }
  for (const char* name : {".log", "log", "logbook.txt", "x.login", "app.log.txt", "x.log/y"}) {
    EXPECT_EQ(KindOf(name, "text"), SourceKind::kText) << name;
  }
  EXPECT_EQ(KindOf("x.jsonl", " {\"a\":1}"), SourceKind::kJsonLines);
  EXPECT_EQ(KindOf("x.jsonl", "no json"), SourceKind::kText);
  EXPECT_EQ(KindOf("x.mbox", "From a@b Mon"), SourceKind::kMailbox);
  EXPECT_EQ(KindOf("x.mbox", "Subject: x"), SourceKind::kMail);
  EXPECT_EQ(KindOf("x.eml", "Subject: x"), SourceKind::kMail);
  EXPECT_EQ(KindOf("x.eml", "no mail: at all"), SourceKind::kText);
}

TEST(SkipLog, CountsBeyondWhatItLists) {
  SkipLog skips;
  for (int i = 0; i < 10001; ++i) skips.Add(SkipReason::kLink, "a\xFF");
  skips.Add(SkipReason::kBinary, "b");
  EXPECT_EQ(skips.total(), 10002u);
  EXPECT_EQ(skips.files(), 1u);
  EXPECT_EQ(skips.items().size(), 10000u);
  EXPECT_EQ(skips.items()[0].what, "a\uFFFD");
  EXPECT_EQ(skips.Describe(), "skipped 1 binary file, 10001 links");
}

}  // namespace
}  // namespace corpusd::sources
