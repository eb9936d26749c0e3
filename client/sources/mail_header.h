// client/sources/mail_header.h -- the headers of a mail or of a part of one (RFC 5322, 2045 and
// 2047): what a document keeps of them and what says how to read the body. Never fails: headers
// that make no sense are as if they were not there. Pure but for HeaderReader, a value for one
// thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace corpusd::sources {

struct MailHeaders {
  // As people read them: unfolded, encoded words decoded, UTF-8 without control characters, at most
  // 4 KiB each. Empty: not there.
  std::string from;
  std::string to;
  std::string date;
  std::string subject;

  std::string type = "text/plain";  // in lower case, without its parameters
  std::string charset;              // in lower case
  std::string boundary;
  std::string encoding;     // Content-Transfer-Encoding, in lower case
  std::string disposition;  // "attachment", "inline", ...: in lower case
  std::string file_name;
};

// Takes the lines before the first empty one, folded as they come. What goes beyond 256 KiB is
// dropped.
class HeaderReader {
 public:
  void AddLine(std::string_view line);
  MailHeaders Finish();

 private:
  static constexpr size_t kBytesMax = size_t{256} << 10;

  void EndField();

  MailHeaders headers_;
  std::string field_;  // "Name: value", unfolded
  size_t bytes_ = 0;
};

// "=?utf-8?q?caf=C3=A9?= noir" as text.
std::string DecodeHeaderText(std::string_view raw);
// The value of a parameter in "text/plain; charset=x"; empty if there is none. name: lower case.
std::string HeaderParameter(std::string_view value, std::string_view name);

}  // namespace corpusd::sources
