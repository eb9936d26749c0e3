#include "client/sources/mail_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/sources/mail_header.h"
#include "recorded_documents.h"

namespace corpusd::sources {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

// The documents, the same whatever the pieces.
std::vector<RecordedDocuments::Document> Read(MailForm form, std::string_view text,
                                              SkipLog* skips = nullptr) {
  std::vector<RecordedDocuments::Document> whole;
  for (const size_t piece_bytes : {size_t{1} << 20, size_t{1}, size_t{7}}) {
    RecordedDocuments documents;
    SkipLog log;
    MailReader reader(form, "m.mbox", documents, log);
    EXPECT_TRUE(Feed(reader, text, piece_bytes));
    if (whole.empty()) whole = documents.documents();
    EXPECT_EQ(documents.documents(), whole) << piece_bytes;
    if (skips != nullptr) *skips = log;
  }
  return whole;
}

TEST(MailHeader, DecodesEncodedWords) {
  EXPECT_EQ(DecodeHeaderText("plain"), "plain");
  EXPECT_EQ(DecodeHeaderText("=?utf-8?q?caf=C3=A9_noir?= x"), "café noir x");
  EXPECT_EQ(DecodeHeaderText("=?ISO-8859-1?Q?a?= \t=?iso-8859-1?Q?_=E9?="), "a é");
  EXPECT_EQ(DecodeHeaderText("x =?UTF-8?B?5ryi5a2X?= y"), "x 漢字 y");
  EXPECT_EQ(DecodeHeaderText("=?utf-8*de?q?gr=C3=BCn?="), "grün");
  EXPECT_EQ(DecodeHeaderText("raw caf\xE9"), "raw café");
  for (const char* broken : {"=?", "=?utf-8?", "=?utf-8?q", "=?utf-8?q?", "=?utf-8?x?a?=", "a =? b",
                             "=?utf-8?q?never ends"}) {
    EXPECT_EQ(DecodeHeaderText(broken), broken);
  }
}

TEST(MailHeader, WordsThatNeverEndTakeNoTime) {
  std::string hostile;
  while (hostile.size() < 200000) hostile += "=?x?q? ";
  EXPECT_TRUE(DecodeHeaderText(hostile) == hostile);
}

TEST(MailHeader, FindsParameters) {
  EXPECT_EQ(HeaderParameter("text/plain; charset=utf-8; format=flowed", "charset"), "utf-8");
  EXPECT_EQ(HeaderParameter("m/x; Boundary = \"a;b\\\"c\" ; x=y", "boundary"), "a;b\"c");
  EXPECT_EQ(HeaderParameter("m/x; a=\"never ends; boundary=b", "boundary"), "");
  EXPECT_EQ(HeaderParameter("text/plain", "charset"), "");
  EXPECT_EQ(HeaderParameter("text/plain;", "charset"), "");
}

TEST(MailHeader, KeepsWhatMattersTidied) {
  HeaderReader reader;
  for (const char* line : {"From: a@b.example", "Subject: one", "\ttwo \x01 three", "no colon here",
                           "SUBJECT: not the first", "Content-Type: Text/HTML; charset=\"UTF-8\"",
                           "Content-Transfer-Encoding: Base64 "}) {
    reader.AddLine(line);
  }
  reader.AddLine("To: " + std::string(100000, 'x'));
  const MailHeaders headers = reader.Finish();
  EXPECT_EQ(headers.from, "a@b.example");
  EXPECT_EQ(headers.subject, "one two   three");
  EXPECT_EQ(headers.to.size(), 4096u);
  EXPECT_EQ(headers.type, "text/html");
  EXPECT_EQ(headers.charset, "utf-8");
  EXPECT_EQ(headers.encoding, "base64");
  EXPECT_EQ(HeaderReader().Finish().type, "text/plain");
}

TEST(MailReader, EachMailOfAnMboxIsADocument) {
  const auto documents = Read(MailForm::kMailbox,
                              "From a@b.example Mon Jan  5 10:00:00 2026\n"
                              "From: A <a@b.example>\nTo: c@d.example\nDate: Mon, 5 Jan 2026\n"
                              "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nX-Other: not kept\n"
                              "\n"
                              "Hello.\r\n\n>From here on\nFrom here it is text, at 10 o'clock\n"
                              "\nFrom c@d.example Tue Jan  6 11:30:00 2026\n"
                              "Subject: \n\nsecond\n"
                              "\nFrom e@f.example Tue Jan  6 11:31:00 2026\n\nthird");
  EXPECT_THAT(documents,
              ElementsAre(Pair("m.mbox#1 Grüße",
                               "From: A <a@b.example>\nTo: c@d.example\nDate: Mon, 5 Jan 2026\n"
                               "Subject: Grüße\n\nHello.\n\nFrom here on\n"
                               "From here it is text, at 10 o'clock\n\n"),
                          Pair("m.mbox#2", "second\n\n"), Pair("m.mbox#3", "third\n")));
}

constexpr std::string_view kMultipart =
    "Subject: parts\nContent-Type: multipart/mixed; boundary=\"out er\"\n\n"
    "not shown\n"
    "--out er\n"
    "Content-Type: multipart/alternative; boundary=in\n\n"
    "--in\n"
    "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n"
    "caf=E9 =\ngoes on\n"
    "--in\n"
    "Content-Type: text/html\n\n<p>caf&eacute;</p>\n"
    "--in--\n"
    "--out er  \n"
    "Content-Type: application/pdf; name=\"bill.pdf\"\nContent-Transfer-Encoding: base64\n\n"
    "JVBERi0x\n"
    "--out er\n"
    "Content-Type: text/plain\nContent-Disposition: attachment; filename=notes.txt\n\nattached\n"
    "--out er\n"
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw6TDtg==\n"
    "--out er\n"
    "Content-Type: message/rfc822\n\nFrom: x@y.example\nSubject: inner\n\ninner text\n"
    "--out er--\nnot shown either\n";

TEST(MailReader, TakesTheTextPartsAndCountsTheOthers) {
  SkipLog skips;
  const auto documents = Read(MailForm::kOne, kMultipart, &skips);
  EXPECT_THAT(documents, ElementsAre(Pair("m.mbox",
                                          "Subject: parts\n\ncafé goes on\näö\n"
                                          "From: x@y.example\nSubject: inner\n\n"
                                          "inner text\n")));
  EXPECT_EQ(skips.count(SkipReason::kAttachment), 2u);
  EXPECT_EQ(skips.count(SkipReason::kHtmlPart), 1u);
  EXPECT_THAT(skips.items()[1].what, HasSubstr("m.mbox (bill.pdf)"));
}

TEST(MailReader, SurvivesWhatIsBroken) {
  // Cut off everywhere, a mail is still at most one document and nothing is lost track of.
  for (size_t bytes = 0; bytes <= kMultipart.size(); ++bytes) {
    RecordedDocuments documents;
    SkipLog skips;
    MailReader reader(MailForm::kOne, "m.eml", documents, skips);
    ASSERT_TRUE(Feed(reader, kMultipart.substr(0, bytes), 4096));
    ASSERT_EQ(documents.documents().size(), bytes == 0 ? 0u : 1u) << bytes;
  }
  EXPECT_THAT(Read(MailForm::kOne, "\n\nonly a body\n"),
              ElementsAre(Pair("m.mbox", "\nonly a body\n")));
  EXPECT_THAT(Read(MailForm::kOne, "Content-Type: multipart/mixed\n\nno boundary\n"),
              ElementsAre(Pair("m.mbox", "")));
  EXPECT_TRUE(Read(MailForm::kMailbox, "nothing like an mbox\n").empty());
}

TEST(MailReader, HostileNestingEnds) {
  std::string mail = "Subject: deep\n";
  for (int i = 0; i < 1000; ++i) {
    const std::string boundary = "b" + std::to_string(i);
    mail += "Content-Type: multipart/mixed; boundary=" + boundary + "\n\n--" + boundary + "\n";
  }
  SkipLog skips;
  const auto documents = Read(MailForm::kOne, mail + "\ntext\n", &skips);
  EXPECT_EQ(documents.size(), 1u);
  EXPECT_EQ(skips.count(SkipReason::kAttachment), 1u);
  // Mails attached to mails are read one after the other, not inside each other.
  std::string attached;
  for (int i = 0; i < 5000; ++i) attached += "Content-Type: message/rfc822\n\n";
  EXPECT_THAT(Read(MailForm::kOne, attached + "\ntext\n"), ElementsAre(Pair("m.mbox", "text\n")));
}

TEST(MailReader, LongLinesAreNotKept) {
  SkipLog skips;
  const std::string base64(size_t{1} << 20, 'A');  // an attachment without line ends
  const auto documents = Read(MailForm::kOne,
                              "Subject: " + std::string(300000, 's') +
                                  "\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
                                  "Content-Type: image/png\n\n" +
                                  base64 + "\n--b\n\ntext\n--b--\n",
                              &skips);
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_THAT(documents[0].second, HasSubstr("text\n"));
  EXPECT_LT(documents[0].second.size(), 10000u);
  EXPECT_THAT(documents[0].second, Not(HasSubstr("AAAA")));
  const auto named = Read(MailForm::kMailbox,
                          "From x Mon 10:00:00\nSubject: " + std::string(200, 's') + "é\n\nt\n");
  EXPECT_LT(named[0].first.size(), 140u);
}

}  // namespace
}  // namespace corpusd::sources
