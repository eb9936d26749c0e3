#include "client/sources/gitignore.h"

#include <array>
#include <cctype>
#include <cstddef>
#include <optional>
#include <utility>

namespace corpusd::sources {
namespace {

struct CharacterClass {
  std::string_view name;
  int (*contains)(int);
};

constexpr std::array kCharacterClasses = {
    CharacterClass{"alnum", std::isalnum}, CharacterClass{"alpha", std::isalpha},
    CharacterClass{"blank", std::isblank}, CharacterClass{"cntrl", std::iscntrl},
    CharacterClass{"digit", std::isdigit}, CharacterClass{"graph", std::isgraph},
    CharacterClass{"lower", std::islower}, CharacterClass{"print", std::isprint},
    CharacterClass{"punct", std::ispunct}, CharacterClass{"space", std::isspace},
    CharacterClass{"upper", std::isupper}, CharacterClass{"xdigit", std::isxdigit},
};

struct BracketMatch {
  bool matched;
  size_t used;  // bytes of the pattern, from '[' to ']'
};

// "[:name:]" at the front of rest. RETURNS nothing if it is none; an unknown name contains nothing,
// and the pattern as a whole then never matches: used is 0.
std::optional<BracketMatch> MatchClass(std::string_view rest, unsigned char c) {
  if (!rest.starts_with("[:")) return std::nullopt;
  const size_t end = rest.find(']', 2);
  if (end == std::string_view::npos) return BracketMatch{false, 0};
  if (end < 3 || rest[end - 1] != ':') return std::nullopt;
  for (const CharacterClass& known : kCharacterClasses) {
    if (rest.substr(2, end - 3) == known.name) {
      return BracketMatch{known.contains(c) != 0, end + 1};
    }
  }
  return BracketMatch{false, 0};
}

// Takes one character, perhaps escaped, off the pattern at `at`. RETURNS nothing at the end.
std::optional<unsigned char> TakeCharacter(std::string_view pattern, size_t& at) {
  if (at < pattern.size() && pattern[at] == '\\') ++at;
  if (at >= pattern.size()) return std::nullopt;
  return static_cast<unsigned char>(pattern[at++]);
}

// REQUIRES: pattern[0] == '['. RETURNS nothing if the bracket is never closed: then nothing
// matches.
std::optional<BracketMatch> MatchBracket(std::string_view pattern, unsigned char c) {
  size_t at = 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool matched = false;
  const size_t first = at;
  while (at < pattern.size() && (pattern[at] != ']' || at == first)) {
    if (const auto named = MatchClass(pattern.substr(at), c)) {
      if (named->used == 0) return std::nullopt;
      matched = matched || named->matched;
      at += named->used;
      continue;
    }
    const auto low = TakeCharacter(pattern, at);
    if (!low) return std::nullopt;
    auto high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      ++at;
      high = TakeCharacter(pattern, at);
      if (!high) return std::nullopt;
    }
    matched = matched || (c >= *low && c <= *high);
  }
  if (at >= pattern.size()) return std::nullopt;
  return BracketMatch{matched != negated, at + 1};
}

// Matches one character of a name against the pattern at its front, which is no star.
// RETURNS the bytes of the pattern used, or 0 for no match.
size_t MatchOne(std::string_view pattern, unsigned char c) {
  switch (pattern[0]) {
    case '?':
      return 1;
    case '[': {
      const auto bracket = MatchBracket(pattern, c);
      return bracket && bracket->matched ? bracket->used : 0;
    }
    case '\\':
      // A backslash that escapes nothing makes a pattern that never matches.
      return pattern.size() > 1 && static_cast<unsigned char>(pattern[1]) == c ? 2 : 0;
    default:
      return static_cast<unsigned char>(pattern[0]) == c ? 1 : 0;
  }
}

std::vector<std::string> SplitOnSlash(std::string_view text) {
  std::vector<std::string> parts;
  while (true) {
    const size_t slash = text.find('/');
    parts.emplace_back(text.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    text.remove_prefix(slash + 1);
  }
}

// The same walk as MatchesName, one level up: names for characters, "**" for the star. Going back
// to the last
// "**" only is enough, because a later one can take up whatever an earlier one left.
bool MatchesSegments(const std::vector<std::string>& pattern,
                     const std::vector<std::string>& names) {
  size_t p = 0;
  size_t n = 0;
  std::optional<size_t> star;
  size_t star_name = 0;
  while (n < names.size()) {
    if (p < pattern.size() && pattern[p] == "**") {
      star = p++;
      star_name = n;
    } else if (p < pattern.size() && MatchesName(pattern[p], names[n])) {
      ++p;
      ++n;
    } else if (star) {
      p = *star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == "**") ++p;
  return p == pattern.size();
}

// Spaces at the end do not count unless a backslash stands before them.
std::string_view StripTrailingSpaces(std::string_view line) {
  size_t kept = 0;
  for (size_t at = 0; at < line.size(); ++at) {
    if (line[at] == '\\' && at + 1 < line.size()) {
      ++at;
      kept = at + 1;
    } else if (line[at] != ' ') {
      kept = at + 1;
    }
  }
  return line.substr(0, kept);
}

}  // namespace

bool MatchesName(std::string_view pattern, std::string_view name) {
  size_t p = 0;
  size_t n = 0;
  std::optional<size_t> star;
  size_t star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
      continue;
    }
    const size_t used =
        p < pattern.size() ? MatchOne(pattern.substr(p), static_cast<unsigned char>(name[n])) : 0;
    if (used > 0) {
      p += used;
      ++n;
    } else if (star) {
      p = *star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

GitignoreFile::GitignoreFile(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    AddLine(line);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
}

void GitignoreFile::AddLine(std::string_view line) {
  line = StripTrailingSpaces(line);
  if (line.empty() || line.front() == '#') return;
  Pattern pattern;
  if (line.front() == '!') {
    pattern.negated = true;
    line.remove_prefix(1);
  }
  if (line.ends_with('/')) {
    pattern.directory_only = true;
    line.remove_suffix(1);
  }
  pattern.name_only = line.find('/') == std::string_view::npos;
  if (line.starts_with('/')) line.remove_prefix(1);
  if (line.empty()) return;
  if (pattern.name_only) {
    pattern.segments.emplace_back(line);
  } else {
    pattern.segments = SplitOnSlash(line);
    // "abc/**" is everything inside abc, not abc itself.
    if (pattern.segments.back() == "**") pattern.segments.insert(pattern.segments.end() - 1, "*");
  }
  patterns_.push_back(std::move(pattern));
}

GitignoreFile::Verdict GitignoreFile::Match(std::string_view path, bool is_directory) const {
  const std::vector<std::string> names = SplitOnSlash(path);
  for (size_t i = patterns_.size(); i > 0; --i) {
    const Pattern& pattern = patterns_[i - 1];
    if (pattern.directory_only && !is_directory) continue;
    const bool matches = pattern.name_only ? MatchesName(pattern.segments.front(), names.back())
                                           : MatchesSegments(pattern.segments, names);
    if (matches) return pattern.negated ? Verdict::kKept : Verdict::kIgnored;
  }
  return Verdict::kNone;
}

void GitignoreStack::Push(std::string directory, std::string_view text) {
  levels_.push_back({std::move(directory), GitignoreFile(text)});
}

void GitignoreStack::Pop() { levels_.pop_back(); }

bool GitignoreStack::IsIgnored(std::string_view path, bool is_directory) const {
  for (size_t i = levels_.size(); i > 0; --i) {
    const Level& level = levels_[i - 1];
    const auto verdict = level.file.Match(path.substr(level.directory.size() + 1), is_directory);
    if (verdict != GitignoreFile::Verdict::kNone) {
      return verdict == GitignoreFile::Verdict::kIgnored;
    }
  }
  return false;
}

}  // namespace corpusd::sources
