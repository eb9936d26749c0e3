// Delimiters and white space follow Jinja 3's lexer with trim_blocks and lstrip_blocks.
#include "engine/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

constexpr std::string_view kAsciiSpace = " \t\r\n\v\f\x1c\x1d\x1e\x1f";
// Two characters before one: the longest counts.
constexpr std::array<std::string_view, 26> kOperators = {
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
    ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", "|", ",", ":", ".", ";"};

std::string_view SkipAsciiSpace(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kAsciiSpace), text.size()));
}

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  Result<std::vector<Token>> Run() {
    while (!rest_.empty()) RETURN_IF_ERROR(NextPart());
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  std::string_view Take(size_t bytes) {
    const std::string_view taken = rest_.substr(0, bytes);
    for (const char c : taken) line_ += c == '\n' ? 1 : 0;
    rest_.remove_prefix(taken.size());
    return taken;
  }
  void SkipSpace() { Take(std::min(rest_.find_first_not_of(kAsciiSpace), rest_.size())); }

  // Text up to the next tag, then the tag.
  Status NextPart() {
    size_t at = 0;
    while (true) {
      at = rest_.find('{', at);
      if (at == std::string_view::npos || at + 1 >= rest_.size()) break;
      const char next = rest_[at + 1];
      if (next == '%' || next == '{' || next == '#') break;
      ++at;
    }
    if (at == std::string_view::npos || at + 1 >= rest_.size()) {
      const uint32_t line = line_;
      tokens_.push_back({TokenKind::kText, std::string(Take(rest_.size())), line});
      return OkStatus();
    }
    const char kind = rest_[at + 1];
    const char sign = at + 2 < rest_.size() ? rest_[at + 2] : '\0';
    AddText(at, kind, sign);
    const uint32_t line = line_;
    Take(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#') return SkipComment(line);
    if (kind == '%' && BeginsRaw()) return TakeRaw(line);
    Add(kind == '%' ? TokenKind::kBlockOpen : TokenKind::kPrintOpen, "");
    return TakeTag(kind == '%' ? '%' : '}', line);
  }

  // The text before a tag, without what the tag strips of it.
  void AddText(size_t bytes, char kind, char sign) {
    std::string_view text = rest_.substr(0, bytes);
    if (sign == '-') {
      text = Strip(text, "", Side::kRight);
    } else if (sign != '+' && kind != '{') {
      // White space between the line's beginning and the tag.
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((newline != std::string_view::npos || line_starts_) &&
          text.find_first_not_of(kAsciiSpace, begin) == std::string_view::npos) {
        text = text.substr(0, begin);
      }
    }
    if (!text.empty()) Add(TokenKind::kText, std::string(text));
    Take(bytes);
  }

  // What follows a tag's end: all white space after '-', one newline after a block.
  void EndTag(char sign, bool block) {
    line_starts_ = false;
    if (sign == '-') {
      const size_t space = std::min(rest_.find_first_not_of(kAsciiSpace), rest_.size());
      line_starts_ = space > 0 && rest_[space - 1] == '\n';
      Take(space);
    } else if (block && sign != '+' && rest_.starts_with('\n')) {
      Take(1);
      line_starts_ = true;
    }
  }

  Status SkipComment(uint32_t line) {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) return TemplateError(line, "a comment does not end");
    const char sign = end > 0 ? rest_[end - 1] : '\0';
    Take(end + 2);
    EndTag(sign, true);
    return OkStatus();
  }

  bool BeginsRaw() const {
    const std::string_view inside = SkipAsciiSpace(rest_);
    if (!inside.starts_with("raw")) return false;
    const std::string_view after = SkipAsciiSpace(inside.substr(3));
    return after.starts_with("%}") || after.starts_with("-%}");
  }

  Status TakeRaw(uint32_t line) {
    const size_t close = rest_.find("%}");
    const bool strips = rest_[close - 1] == '-';
    Take(close + 2);
    if (strips) SkipSpace();
    for (size_t at = 0;; ++at) {
      at = rest_.find("{%", at);
      if (at == std::string_view::npos) return TemplateError(line, "'raw' does not end");
      size_t inside = at + 2;
      const char sign = inside < rest_.size() ? rest_[inside] : '\0';
      if (sign == '-' || sign == '+') ++inside;
      const std::string_view name = SkipAsciiSpace(rest_.substr(inside));
      if (!name.starts_with("endraw")) continue;
      const std::string_view after = SkipAsciiSpace(name.substr(6));
      const bool signed_end = after.starts_with("-%}") || after.starts_with("+%}");
      if (!signed_end && !after.starts_with("%}")) continue;
      line_starts_ = false;
      AddText(at, '%', sign);
      Take(static_cast<size_t>(after.data() - rest_.data()) + (signed_end ? 3 : 2));
      EndTag(signed_end ? after[0] : '\0', true);
      return OkStatus();
    }
  }

  // Tokens up to the tag's end; inside of brackets an end is none.
  Status TakeTag(char close, uint32_t line) {
    std::string open;
    while (true) {
      SkipSpace();
      if (rest_.empty()) return TemplateError(line, "a tag does not end");
      if (open.empty()) {
        const bool has_sign = rest_[0] == '-' || (rest_[0] == '+' && close == '%');
        const std::string_view end = rest_.substr(has_sign ? 1 : 0);
        if (end.size() >= 2 && end[0] == close && end[1] == '}') {
          const char sign = has_sign ? rest_[0] : '\0';
          Take(has_sign ? 3 : 2);
          Add(close == '%' ? TokenKind::kBlockClose : TokenKind::kPrintClose, "");
          EndTag(sign, close == '%');
          return OkStatus();
        }
      }
      RETURN_IF_ERROR(TakeToken(&open));
    }
  }

  Status TakeToken(std::string* open) {
    const char c = rest_[0];
    if (c == '\'' || c == '"') return TakeString();
    if (IsDigit(c)) return TakeNumber();
    if (IsNameStart(c)) {
      size_t end = 1;
      while (end < rest_.size() && (IsNameStart(rest_[end]) || IsDigit(rest_[end]))) ++end;
      Add(TokenKind::kName, std::string(rest_.substr(0, end)));
      Take(end);
      return OkStatus();
    }
    for (const std::string_view op : kOperators) {
      if (!rest_.starts_with(op)) continue;
      if (op == "(" || op == "[" || op == "{") open->push_back(op[0]);
      if (op == ")" || op == "]" || op == "}") {
        const char opening = op == ")" ? '(' : op == "]" ? '[' : '{';
        if (open->empty() || open->back() != opening) {
          return TemplateError(line_, "'" + std::string(op) + "' closes nothing");
        }
        open->pop_back();
      }
      Add(TokenKind::kOperator, std::string(op));
      Take(op.size());
      return OkStatus();
    }
    return TemplateError(line_, "unexpected character " + QuotedText(rest_.substr(0, 1)));
  }

  Status TakeNumber() {
    size_t end = 0;
    const auto digits = [&] {
      while (end < rest_.size() && (IsDigit(rest_[end]) || rest_[end] == '_')) ++end;
    };
    digits();
    bool real = false;
    if (end + 1 < rest_.size() && rest_[end] == '.' && IsDigit(rest_[end + 1])) {
      real = true;
      ++end;
      digits();
    }
    if (end < rest_.size() && (rest_[end] == 'e' || rest_[end] == 'E')) {
      size_t power = end + 1;
      if (power < rest_.size() && (rest_[power] == '+' || rest_[power] == '-')) ++power;
      if (power < rest_.size() && IsDigit(rest_[power])) {
        real = true;
        end = power;
        digits();
      }
    }
    std::string text;
    for (const char c : rest_.substr(0, end)) {
      if (c != '_') text.push_back(c);
    }
    Add(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    Take(end);
    return OkStatus();
  }

  Status TakeString() {
    const char quote = rest_[0];
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) return TemplateError(line_, "a string does not end");
    Add(TokenKind::kString, Unescaped(rest_.substr(1, end - 1)));
    Take(end + 1);
    return OkStatus();
  }

  // Python's escapes; others keep their backslash.
  static std::string Unescaped(std::string_view text) {
    constexpr std::string_view kLetters = "ntr\\'\"abfv";
    constexpr std::string_view kMeanings = "\n\t\r\\'\"\a\b\f\v";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out.push_back(text[i]);
        continue;
      }
      const char letter = text[++i];
      const size_t known = kLetters.find(letter);
      const size_t hex_digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
      uint32_t point = 0;
      if (known != std::string_view::npos) {
        out.push_back(kMeanings[known]);
      } else if (letter == '\n') {
        continue;  // a line that goes on
      } else if (hex_digits > 0 && ReadHex(text.substr(i + 1, hex_digits), hex_digits, &point)) {
        AppendUtf8(point, &out);
        i += hex_digits;
      } else if (letter >= '0' && letter <= '7') {
        size_t digits = 0;
        while (digits < 3 && i + digits < text.size() && text[i + digits] >= '0' &&
               text[i + digits] <= '7') {
          point = point * 8 + static_cast<uint32_t>(text[i + digits++] - '0');
        }
        AppendUtf8(point, &out);
        i += digits - 1;
      } else {
        out += {'\\', letter};
      }
    }
    return out;
  }

  static bool ReadHex(std::string_view digits, size_t count, uint32_t* value) {
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), *value, 16);
    return digits.size() == count && read.ec == std::errc() &&
           read.ptr == digits.data() + digits.size() && *value <= 0x10ffff;
  }

  const std::string source_;
  std::string_view rest_;
  std::vector<Token> tokens_;
  uint32_t line_ = 1;
  bool line_starts_ = true;  // the last tag, or the beginning, left us where a line begins
};

}  // namespace

Status TemplateError(uint32_t line, const std::string& what) {
  return InvalidArgumentError("line " + std::to_string(line) + ": " + what);
}

Result<std::vector<Token>> Tokenize(std::string_view source) {
  if (source.size() > kTemplateBytesMax) {
    return InvalidArgumentError("a template of " + std::to_string(source.size()) +
                                " bytes is beyond " + std::to_string(kTemplateBytesMax));
  }
  // Newlines of all kinds are one kind, and a last one is dropped.
  std::string text = ReplaceAll(ReplaceAll(source, "\r\n", "\n", -1), "\r", "\n", -1);
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(std::move(text)).Run();
}

}  // namespace corpusd::jinja
