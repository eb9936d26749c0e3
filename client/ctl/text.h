// client/ctl/text.h -- text as terminals see it. Knows UTF-8 and nothing of corpora. Pure; any
// thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace corpusd::ctl {

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

}  // namespace corpusd::ctl
