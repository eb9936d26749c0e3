#include "tests/eval/seeded_words.h"

#include <cctype>

namespace corpusd {

std::string RandomDigits(SeededRandom& random, size_t count) {
  std::string text(1, static_cast<char>('1' + random.Below(9)));
  while (text.size() < count) text += static_cast<char>('0' + random.Below(10));
  return text;
}

std::string RandomHexDigits(SeededRandom& random, size_t count) {
  std::string text;
  while (text.size() < count) text += "0123456789abcdef"[random.Below(16)];
  return text;
}

bool HoldsWord(std::string_view text, std::string_view word) {
  const auto inside = [&](size_t at) {
    return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
  };
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    if (!(at > 0 && inside(at - 1)) && !inside(at + word.size())) return true;
  }
  return false;
}

}  // namespace corpusd
