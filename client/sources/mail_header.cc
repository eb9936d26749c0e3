#include "client/sources/mail_header.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "client/sources/transfer_decoder.h"
#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

constexpr size_t kValueBytesMax = size_t{4} << 10;
constexpr size_t kBoundaryBytesMax = 256;      // RFC 2046 allows 70
constexpr size_t kEncodedWordBytesMax = 1000;  // RFC 2047 allows 75

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// At most bytes_max of it, without control characters and torn characters.
std::string Tidy(std::string_view text, size_t bytes_max) {
  std::string tidy;
  while (!text.empty()) {
    const size_t bytes = std::max<size_t>(Utf8CharacterBytes(text), 1);
    if (tidy.size() + bytes > bytes_max) break;
    const bool control =
        bytes == 1 && (static_cast<unsigned char>(text[0]) < 0x20 || text[0] == 0x7F);
    tidy += control ? std::string_view(" ") : text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return ReplaceInvalidUtf8(tidy);
}

struct EncodedWord {
  std::string text;
  size_t bytes = 0;  // that it takes in the raw text; 0: there is none
};

// RETURNS the encoded word "=?charset?q?...?=" at the front of raw, if there is one.
EncodedWord TakeEncodedWord(std::string_view raw) {
  if (!raw.starts_with("=?")) return {};
  // Words that never end must not make every one of them look through the whole header.
  raw = raw.substr(0, kEncodedWordBytesMax);
  const size_t charset_end = raw.find('?', 2);
  if (charset_end == std::string_view::npos || charset_end + 2 >= raw.size()) return {};
  const char form =
      static_cast<char>(std::tolower(static_cast<unsigned char>(raw[charset_end + 1])));
  if (raw[charset_end + 2] != '?' || (form != 'q' && form != 'b')) return {};
  const size_t begin = charset_end + 3;
  const size_t end = raw.find("?=", begin);
  if (end == std::string_view::npos) return {};
  std::string charset = Lower(raw.substr(2, charset_end - 2));
  charset = charset.substr(0, charset.find('*'));  // a language may follow
  std::string content(raw.substr(begin, end - begin));
  if (form == 'q') std::replace(content.begin(), content.end(), '_', ' ');
  const std::string bytes = DecodeTransfer(form == 'q' ? "quoted-printable" : "base64", content);
  return {DecodeCharset(charset, bytes), end + 2};
}

}  // namespace

std::string DecodeHeaderText(std::string_view raw) {
  std::string text;
  bool after_word = false;
  while (!raw.empty()) {
    // Blanks between two encoded words are no part of the text.
    const size_t blanks = std::min(raw.find_first_not_of(" \t"), raw.size());
    const EncodedWord word = TakeEncodedWord(raw.substr(blanks));
    if (word.bytes > 0) {
      if (!after_word) text += raw.substr(0, blanks);
      text += word.text;
      raw.remove_prefix(blanks + word.bytes);
      after_word = true;
      continue;
    }
    size_t next = raw.find("=?", blanks + 1);
    next = std::min(next, raw.size());
    // Blanks before a word belong to the next round.
    while (next < raw.size() && next > blanks + 1 &&
           (raw[next - 1] == ' ' || raw[next - 1] == '\t')) {
      --next;
    }
    text += DecodeCharset("", raw.substr(0, next));
    raw.remove_prefix(next);
    after_word = false;
  }
  return text;
}

std::string HeaderParameter(std::string_view value, std::string_view name) {
  size_t at = value.find(';');
  while (at != std::string_view::npos) {
    value.remove_prefix(at + 1);
    const size_t equals = value.find('=');
    if (equals == std::string_view::npos) return "";
    const std::string found = Lower(Trimmed(value.substr(0, equals)));
    value = Trimmed(value.substr(equals + 1));
    std::string content;
    if (value.starts_with('"')) {
      size_t i = 1;
      for (; i < value.size() && value[i] != '"'; ++i) {
        if (value[i] == '\\' && i + 1 < value.size()) ++i;
        content += value[i];
      }
      value.remove_prefix(std::min(i + 1, value.size()));
    } else {
      content = Trimmed(value.substr(0, value.find(';')));
    }
    if (found == name) return content;
    at = value.find(';');
  }
  return "";
}

void HeaderReader::AddLine(std::string_view line) {
  bytes_ += line.size();
  if (bytes_ > kBytesMax) return;
  if (line.starts_with(' ') || line.starts_with('\t')) {
    field_ += line;
    return;
  }
  EndField();
  field_ = line;
}

void HeaderReader::EndField() {
  const std::string field = std::exchange(field_, {});
  const size_t colon = field.find(':');
  if (colon == std::string::npos) return;
  const std::string name = Lower(Trimmed(std::string_view(field).substr(0, colon)));
  const std::string_view value = Trimmed(std::string_view(field).substr(colon + 1));
  const auto keep = [&](std::string& target) {
    if (target.empty()) target = Tidy(DecodeHeaderText(value), kValueBytesMax);
  };
  if (name == "from") keep(headers_.from);
  if (name == "to") keep(headers_.to);
  if (name == "date") keep(headers_.date);
  if (name == "subject") keep(headers_.subject);
  if (name == "content-type") {
    headers_.type = Lower(Trimmed(value.substr(0, value.find(';'))));
    headers_.charset = Lower(HeaderParameter(value, "charset"));
    headers_.boundary = HeaderParameter(value, "boundary");
    if (headers_.boundary.size() > kBoundaryBytesMax) headers_.boundary.clear();
    if (headers_.file_name.empty()) {
      headers_.file_name = Tidy(DecodeHeaderText(HeaderParameter(value, "name")), kValueBytesMax);
    }
  }
  if (name == "content-transfer-encoding") headers_.encoding = Lower(value);
  if (name == "content-disposition") {
    headers_.disposition = Lower(Trimmed(value.substr(0, value.find(';'))));
    const std::string named = HeaderParameter(value, "filename");
    if (!named.empty()) headers_.file_name = Tidy(DecodeHeaderText(named), kValueBytesMax);
  }
}

MailHeaders HeaderReader::Finish() {
  EndField();
  bytes_ = 0;
  return std::exchange(headers_, {});
}

}  // namespace corpusd::sources
