// client/wire/utf8.h -- Protobuf's text fields are UTF-8, and a peer refuses a frame where one is
// not. What comes from a file system, a terminal or another library is checked or cleaned first.
// Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace corpusd {

// Well-formed by RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view text);
// The text with every byte that does not belong to a well-formed character replaced by '?'.
std::string ToUtf8(std::string_view text);

}  // namespace corpusd
