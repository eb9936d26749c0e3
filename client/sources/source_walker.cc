#include "client/sources/source_walker.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "client/sources/file_reader.h"
#include "client/sources/gitignore.h"
#include "client/sources/text_decoder.h"
#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

namespace fs = std::filesystem;

// A .gitignore beyond this is not one.
constexpr uint64_t kGitignoreBytesMax = uint64_t{4} << 20;
// Deeper than any real tree; keeps the walk's recursion bounded.
constexpr size_t kDepthMax = 512;

ClientError NotFound(std::string message) { return {1, "not_found", std::move(message)}; }
ClientError Invalid(std::string message) {
  return {kClientInvalidArgument, "invalid_argument", std::move(message)};
}

std::string NameOf(const fs::path& path) {
  return ReplaceInvalidUtf8(path.lexically_normal().generic_string());
}

class Walker {
 public:
  ClientResult<Done> AddArgument(const std::string& argument);
  SourceList Take() { return std::move(list_); }

 private:
  void AddFile(const fs::path& path, uint64_t bytes, bool follow_link);
  void WalkRoot(const fs::path& path);
  // absolute: the same directory as directory, without links, for the ignore rules.
  void WalkDirectory(const fs::path& directory, const std::string& absolute, size_t depth);
  void WalkEntry(const fs::path& path, const std::string& absolute, size_t depth);
  // RETURNS whether the directory has rules, which the caller pops again.
  bool PushRules(const std::string& absolute);
  size_t PushRulesAbove(const fs::path& absolute);
  void Unreadable(const fs::path& path, const std::string& why);

  SourceList list_;
  GitignoreStack rules_;
  std::set<std::string> seen_;  // names, so that overlapping arguments give each file once
};

ClientResult<Done> Walker::AddArgument(const std::string& argument) {
  struct stat facts {};
  if (stat(argument.c_str(), &facts) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return NotFound("'" + argument + "' does not exist; nothing was sent");
    }
    return IoFailure("looking at", argument, errno);
  }
  if (S_ISDIR(facts.st_mode)) {
    WalkRoot(argument);
    return Done{};
  }
  if (!S_ISREG(facts.st_mode)) {
    return Invalid("'" + argument + "' is neither a file nor a directory; pipe it in with --stdin");
  }
  if (access(argument.c_str(), R_OK) != 0) return IoFailure("reading", argument, errno);
  const uint64_t binary_before = list_.skipped.count(SkipReason::kBinary);
  AddFile(argument, static_cast<uint64_t>(facts.st_size), true);
  if (list_.skipped.count(SkipReason::kBinary) > binary_before) {
    list_.warnings.push_back("'" + argument + "' is not text and was left out");
  }
  return Done{};
}

void Walker::AddFile(const fs::path& path, uint64_t bytes, bool follow_link) {
  std::string name = NameOf(path);
  // By the raw bytes: two names may differ only in what is not UTF-8.
  if (!seen_.insert(path.lexically_normal().native()).second) return;
  if (bytes == 0) return list_.skipped.Add(SkipReason::kEmpty, name);
  const Packing packing = PackingOf(name);
  if (packing == Packing::kNone) {
    const auto sample = ReadSample(path.native(), follow_link, kSampleBytes);
    if (!sample.ok()) return Unreadable(path, sample.error().message);
    if (LooksBinary(*sample)) return list_.skipped.Add(SkipReason::kBinary, name);
  }
  list_.bytes += bytes;
  list_.files.push_back({path.native(), std::move(name), bytes, follow_link, packing});
}

void Walker::Unreadable(const fs::path& path, const std::string& why) {
  list_.skipped.Add(SkipReason::kUnreadable, NameOf(path), why);
  list_.warnings.push_back("'" + NameOf(path) + "' could not be read (" + why +
                           ") and was left out");
}

bool Walker::PushRules(const std::string& absolute) {
  const std::string path = absolute + "/.gitignore";
  struct stat facts {};
  if (lstat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
  auto text = ReadSmallFile(path, kGitignoreBytesMax);
  if (!text.ok()) {
    list_.warnings.push_back("the rules in '" + ReplaceInvalidUtf8(path) +
                             "' do not count: " + text.error().message);
    return false;
  }
  rules_.Push(absolute, *text);
  return true;
}

// The rules of the directories from the repository's root down to the parent of the one to walk.
size_t Walker::PushRulesAbove(const fs::path& absolute) {
  std::vector<fs::path> above;
  std::error_code ignored;
  for (fs::path at = absolute; !fs::exists(at / ".git", ignored); at = at.parent_path()) {
    if (!at.has_relative_path()) return 0;  // no repository around it
    above.push_back(at.parent_path());
  }
  size_t pushed = 0;
  for (auto directory = above.rbegin(); directory != above.rend(); ++directory) {
    const std::string text = directory->native();
    if (PushRules(text == "/" ? "" : text)) ++pushed;
  }
  return pushed;
}

void Walker::WalkRoot(const fs::path& path) {
  std::error_code error;
  const fs::path absolute = fs::canonical(path, error);
  if (error) return Unreadable(path, error.message());
  size_t pushed = PushRulesAbove(absolute);
  WalkDirectory(path, absolute == "/" ? "" : absolute.native(), 0);
  for (; pushed > 0; --pushed) rules_.Pop();
}

void Walker::WalkDirectory(const fs::path& directory, const std::string& absolute, size_t depth) {
  if (depth > kDepthMax) return Unreadable(directory, "more than 512 directories deep");
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator at(directory, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    names.push_back(at->path().filename().native());
  }
  if (error) Unreadable(directory, error.message());
  std::sort(names.begin(), names.end());
  const bool has_rules = PushRules(absolute);
  for (const std::string& name : names) {
    if (name == ".git") continue;
    WalkEntry(directory / name, absolute + "/" + name, depth);
  }
  if (has_rules) rules_.Pop();
}

void Walker::WalkEntry(const fs::path& path, const std::string& absolute, size_t depth) {
  struct stat facts {};
  if (lstat(path.c_str(), &facts) != 0) return Unreadable(path, std::strerror(errno));
  const bool is_directory = S_ISDIR(facts.st_mode);
  if (rules_.IsIgnored(absolute, is_directory)) {
    list_.skipped.Add(SkipReason::kIgnored, NameOf(path));
  } else if (is_directory) {
    WalkDirectory(path, absolute, depth + 1);
  } else if (S_ISLNK(facts.st_mode)) {
    list_.skipped.Add(SkipReason::kLink, NameOf(path));
  } else if (S_ISREG(facts.st_mode)) {
    AddFile(path, static_cast<uint64_t>(facts.st_size), false);
  } else {
    list_.skipped.Add(SkipReason::kSpecial, NameOf(path));
  }
}

}  // namespace

ClientResult<SourceList> ListSources(const std::vector<std::string>& paths) {
  Walker walker;
  for (const std::string& path : paths) {
    auto added = walker.AddArgument(path);
    if (!added.ok()) return added.error();
  }
  return walker.Take();
}

}  // namespace corpusd::sources
