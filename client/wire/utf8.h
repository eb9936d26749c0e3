// client/wire/utf8.h -- Protobuf's text fields are UTF-8, and a peer refuses a frame where one is
// not. What comes from a file system, a terminal or another library is checked or cleaned first.
// Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace corpusd {

// Well-formed by RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view text);
// The bytes of the well-formed character that text begins with, or 0 if there is none.
// REQUIRES: !text.empty().
size_t Utf8CharacterBytes(std::string_view text);
// Whether text is the beginning of one character that wants more bytes. REQUIRES: !text.empty().
bool IsUtf8CutOff(std::string_view text);
// REQUIRES: code_point <= 0x10FFFF and no surrogate.
void AppendUtf8(uint32_t code_point, std::string* text);
// The text with every byte that does not belong to a well-formed character replaced by '?'.
std::string ToUtf8(std::string_view text);
// The same with U+FFFD, for what people read.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace corpusd
