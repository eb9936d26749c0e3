// engine/jinja/text.h -- what Python's strings can do, for UTF-8: places are counted in characters.
// Broken bytes count as one character each and are kept. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd::jinja {

// Bytes of the character at `at`; REQUIRES: at < text.size().
size_t CharBytes(std::string_view text, size_t at);
// The characters, each as its bytes.
std::vector<std::string_view> Characters(std::string_view text);
uint64_t CountCharacters(std::string_view text);
bool IsSpace(std::string_view character);

enum class Side : uint8_t { kLeft, kRight, kBoth };
// Without characters (""): white space.
std::string_view Strip(std::string_view text, std::string_view characters, Side side);
// At white space if separator is "". limit: how many cuts at most, below 0 for all.
std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right);
std::vector<std::string_view> SplitLines(std::string_view text);
// count: how many at most, below 0 for all.
std::string ReplaceAll(std::string_view text, std::string_view old_text, std::string_view new_text,
                       int64_t count);
std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Capitalized(std::string_view text);
std::string Title(std::string_view text);
// As repr() quotes it.
std::string QuotedText(std::string_view text);
void AppendJsonText(std::string_view text, bool ascii_only, std::string* out);
void AppendUtf8(uint32_t code_point, std::string* out);

}  // namespace corpusd::jinja
