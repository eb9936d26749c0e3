#include "client/wire/utf8.h"

#include <gtest/gtest.h>

namespace corpusd {
namespace {

TEST(Utf8, AcceptsEveryLength) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("a long ASCII beginning, then \xC3\xA9 and a long ASCII end"));
  EXPECT_FALSE(IsUtf8("a long ASCII beginning, then \xE9 and a long ASCII end"));
  EXPECT_TRUE(IsUtf8("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80"));
}

TEST(Utf8, RefusesWhatRfc3629Forbids) {
  for (const char* text : {"\x80", "\xC0\xAF", "\xC3", "\xE0\x80\xAF", "\xED\xA0\x80",
                           "\xF0\x80\x80\xAF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_FALSE(IsUtf8(text));
    EXPECT_TRUE(IsUtf8(ToUtf8(text)));
  }
}

TEST(Utf8, ReplacesOnlyWhatIsBroken) {
  EXPECT_EQ(ToUtf8("caf\xE9/\xC3\xA9.txt"), "caf?/\xC3\xA9.txt");
}

}  // namespace
}  // namespace corpusd
