// engine/decode/utf8_stream.h -- bytes of tokens in, complete UTF-8 out: a character split over two
// tokens is held back until it is whole, and bytes that can never become one turn into U+FFFD. One
// thread per object.
#pragma once

#include <string>
#include <string_view>

namespace corpusd {

class Utf8Stream {
 public:
  // RETURNS what is complete after these bytes; may be empty.
  std::string Append(std::string_view bytes);
  // The end: what is held back becomes one U+FFFD.
  std::string Finish();

 private:
  std::string held_;
};

}  // namespace corpusd
