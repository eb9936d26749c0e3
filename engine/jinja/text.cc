#include "engine/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdio>

namespace corpusd::jinja {
namespace {

// The code point of a character, or -1 for a broken byte.
int32_t CodePointOf(std::string_view character) {
  utf8proc_int32_t point = -1;
  const auto taken = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                                      static_cast<utf8proc_ssize_t>(character.size()), &point);
  return taken == static_cast<utf8proc_ssize_t>(character.size()) ? point : -1;
}

std::string MapCase(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string out;
  for (const std::string_view character : Characters(text)) {
    const int32_t point = CodePointOf(character);
    if (point < 0) {
      out += character;
    } else {
      AppendUtf8(static_cast<uint32_t>(map(point)), &out);
    }
  }
  return out;
}

bool IsLetter(std::string_view character) {
  const int32_t point = CodePointOf(character);
  if (point < 0) return false;
  const utf8proc_category_t category = utf8proc_category(point);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

}  // namespace

size_t CharBytes(std::string_view text, size_t at) {
  utf8proc_int32_t point = -1;
  const auto taken = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                      static_cast<utf8proc_ssize_t>(text.size() - at), &point);
  return taken < 1 ? 1 : static_cast<size_t>(taken);
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size(); at += characters.back().size()) {
    characters.push_back(text.substr(at, CharBytes(text, at)));
  }
  return characters;
}

uint64_t CountCharacters(std::string_view text) {
  uint64_t count = 0;
  for (size_t at = 0; at < text.size(); at += CharBytes(text, at)) ++count;
  return count;
}

bool IsSpace(std::string_view character) {
  const int32_t p = CodePointOf(character);
  return (p >= 9 && p <= 13) || (p >= 28 && p <= 32) || p == 0x85 || p == 0xa0 || p == 0x1680 ||
         (p >= 0x2000 && p <= 0x200a) || p == 0x2028 || p == 0x2029 || p == 0x202f || p == 0x205f ||
         p == 0x3000;
}

std::string_view Strip(std::string_view text, std::string_view characters, Side side) {
  const auto all = Characters(text);
  const auto unwanted = Characters(characters);
  const auto strips = [&](std::string_view character) {
    if (unwanted.empty()) return IsSpace(character);
    return std::find(unwanted.begin(), unwanted.end(), character) != unwanted.end();
  };
  size_t begin = 0, end = all.size();
  if (side != Side::kRight) {
    while (begin < end && strips(all[begin])) ++begin;
  }
  if (side != Side::kLeft) {
    while (end > begin && strips(all[end - 1])) --end;
  }
  if (begin == end) return text.substr(0, 0);
  const size_t first = static_cast<size_t>(all[begin].data() - text.data());
  const size_t last = static_cast<size_t>(all[end - 1].data() - text.data()) + all[end - 1].size();
  return text.substr(first, last - first);
}

namespace {

std::vector<std::string_view> SplitAtSpace(std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  if (from_right) {
    while (true) {
      text = Strip(text, "", Side::kRight);
      if (text.empty()) break;
      if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
        parts.push_back(Strip(text, "", Side::kRight));
        break;
      }
      const auto all = Characters(text);
      size_t word = all.size();
      while (word > 0 && !IsSpace(all[word - 1])) --word;
      const size_t at =
          word == all.size() ? text.size() : static_cast<size_t>(all[word].data() - text.data());
      parts.push_back(text.substr(at));
      text = text.substr(0, at);
    }
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  while (true) {
    text = Strip(text, "", Side::kLeft);
    if (text.empty()) return parts;
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      return parts;
    }
    size_t end = 0;
    while (end < text.size() && !IsSpace(text.substr(end, CharBytes(text, end)))) {
      end += CharBytes(text, end);
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

}  // namespace

std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit, bool from_right) {
  if (separator.empty()) return SplitAtSpace(text, limit, from_right);
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    if (from_right) {
      parts.push_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
    if (text.starts_with("\r\n")) text.remove_prefix(1);
    if (!text.empty()) text.remove_prefix(1);
  }
  return lines;
}

std::string ReplaceAll(std::string_view text, std::string_view old_text, std::string_view new_text,
                       int64_t count) {
  std::string out;
  if (old_text.empty()) {  // before every character and at the end
    for (const std::string_view character : Characters(text)) {
      if (count-- != 0) out += new_text;
      if (count < -1) count = -1;
      out += character;
    }
    if (count != 0) out += new_text;
    return out;
  }
  while (count != 0) {
    const size_t at = text.find(old_text);
    if (at == std::string_view::npos) break;
    out.append(text.substr(0, at)).append(new_text);
    text.remove_prefix(at + old_text.size());
    if (count > 0) --count;
  }
  return out.append(text);
}

std::string Upper(std::string_view text) { return MapCase(text, utf8proc_toupper); }
std::string Lower(std::string_view text) { return MapCase(text, utf8proc_tolower); }

std::string Capitalized(std::string_view text) {
  if (text.empty()) return "";
  const size_t first = CharBytes(text, 0);
  return MapCase(text.substr(0, first), utf8proc_totitle) + Lower(text.substr(first));
}

std::string Title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (const std::string_view character : Characters(text)) {
    const bool letter = IsLetter(character);
    out += !letter  ? std::string(character)
           : inside ? Lower(character)
                    : MapCase(character, utf8proc_totitle);
    inside = letter;
  }
  return out;
}

std::string QuotedText(std::string_view text) {
  const bool plain = text.find('\'') == std::string_view::npos;
  const char quote = plain || text.find('"') != std::string_view::npos ? '\'' : '"';
  std::string out(1, quote);
  for (const std::string_view character : Characters(text)) {
    const char c = character[0];
    if (character.size() > 1) {
      out += character;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == quote || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) >= 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<uint8_t>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + quote;
}

void AppendJsonText(std::string_view text, bool ascii_only, std::string* out) {
  const auto escape = [&](uint32_t unit) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", unit & 0xffff);
    *out += escaped;
  };
  constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f";
  constexpr std::string_view kLetters = "\"\\nrtbf";
  out->push_back('"');
  for (const std::string_view character : Characters(text)) {
    const size_t known = kEscaped.find(character[0]);
    if (known != std::string_view::npos) {
      *out += {'\\', kLetters[known]};
    } else if (static_cast<uint8_t>(character[0]) < 0x20) {
      escape(static_cast<uint8_t>(character[0]));
    } else if (!ascii_only || character.size() == 1) {
      *out += character;
    } else {
      const auto point = static_cast<uint32_t>(CodePointOf(character));
      if (point >= 0x10000) escape(0xd800 + ((point - 0x10000) >> 10));
      escape(point >= 0x10000 ? 0xdc00 + ((point - 0x10000) & 0x3ff) : point);
    }
  }
  out->push_back('"');
}

void AppendUtf8(uint32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes),
              static_cast<size_t>(std::max<utf8proc_ssize_t>(size, 0)));
}

}  // namespace corpusd::jinja
