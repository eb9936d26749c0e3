// client/sources/gitignore.h -- the rules of .gitignore files: comments, negation, directory-only
// and anchored patterns, `*`, `?`, `[...]`, `**` and backslashes, with nested files overriding
// outer ones. Not supported: .git/info/exclude and the user's global file. Matching takes
// polynomial time whatever the pattern. Values; reads no disk; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace corpusd::sources {

class GitignoreFile {
 public:
  enum class Verdict { kNone, kIgnored, kKept };

  explicit GitignoreFile(std::string_view text);

  // path is relative to the directory of the file, with '/' between names and none at either end.
  // RETURNS what the last pattern that matches says.
  Verdict Match(std::string_view path, bool is_directory) const;

 private:
  struct Pattern {
    std::vector<std::string> segments;  // "**" stands for any number of names
    bool negated = false;
    bool directory_only = false;
    bool name_only = false;  // no slash: tried against the last name, at any depth
  };

  void AddLine(std::string_view line);

  std::vector<Pattern> patterns_;
};

// The files that hold on the way from a repository's root down to the directory being walked.
class GitignoreStack {
 public:
  // directory: absolute, without a slash at the end ("/" itself is given as "").
  void Push(std::string directory, std::string_view text);
  void Pop();
  // REQUIRES: path lies under every directory pushed.
  bool IsIgnored(std::string_view path, bool is_directory) const;

 private:
  struct Level {
    std::string directory;
    GitignoreFile file;
  };
  std::vector<Level> levels_;
};

// Whether a name matches a pattern without slashes. Exposed for its test.
bool MatchesName(std::string_view pattern, std::string_view name);

}  // namespace corpusd::sources
