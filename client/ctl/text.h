// client/ctl/text.h -- text as terminals, protobuf strings and the binary sniff see it. Knows UTF-8
// and nothing of corpora. Pure; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace corpusd::ctl {

// The length in bytes of the well-formed UTF-8 sequence at the front of text, or 0 if there is
// none. REQUIRES: !text.empty().
size_t Utf8SequenceBytes(std::string_view text);
bool IsValidUtf8(std::string_view text);
// Each byte that is not part of a well-formed sequence becomes U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

// What a name from a disk or a daemon looks like in one table cell: control characters as \xNN, so
// that none reaches the terminal; invalid UTF-8 replaced.
std::string EscapeForCell(std::string_view text);
// The same for running text on a terminal: newlines and tabs stay.
std::string EscapeForTerminal(std::string_view text);

// Columns of a terminal that text takes: 2 for East Asian wide characters and emoji, 0 for
// combining marks.
size_t DisplayWidth(std::string_view text);
// The longest prefix that takes at most width columns, never a torn character.
std::string TruncateToWidth(std::string_view text, size_t width);

// Whether the first bytes of a file look like something other than text: a NUL, or more than a
// tenth that is not UTF-8 (a sequence cut off by the end of the sample is not counted). An empty
// sample is text.
bool LooksBinary(std::string_view sample);

}  // namespace corpusd::ctl
