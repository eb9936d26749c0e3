#include "client/ctl/source_walker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "client/ctl/gitignore.h"
#include "client/ctl/text.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSniffBytes = 8192;
constexpr size_t kPieceBytes = size_t{1} << 20;
// A .gitignore beyond this is not one.
constexpr uint64_t kGitignoreBytesMax = uint64_t{4} << 20;
// Deeper than any real tree; keeps the walk's recursion bounded.
constexpr size_t kDepthMax = 512;

ClientError NotFound(std::string message) { return {1, "not_found", std::move(message)}; }
ClientError Invalid(std::string message) {
  return {kClientInvalidArgument, "invalid_argument", std::move(message)};
}
ClientError IoFailure(const std::string& what, const std::string& path, int error) {
  return {8, "io_error", what + " '" + path + "' failed: " + std::strerror(error)};
}

// Closes what it holds.
class Descriptor {
 public:
  explicit Descriptor(int file) : file_(file) {}
  ~Descriptor() {
    if (file_ >= 0) close(file_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return file_; }

 private:
  int file_;
};

ssize_t ReadSome(int file, char* buffer, size_t bytes) {
  ssize_t got = 0;
  do {
    got = read(file, buffer, bytes);
  } while (got < 0 && errno == EINTR);
  return got;
}

// Non-blocking, so that a FIFO put in a file's place between the look and the open cannot hang us.
int OpenForReading(const std::string& path, bool follow_link) {
  return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow_link ? 0 : O_NOFOLLOW));
}

enum class Sniff { kText, kBinary, kUnreadable };

Sniff SniffFile(const std::string& path, bool follow_link) {
  const Descriptor file(OpenForReading(path, follow_link));
  if (file.get() < 0) return Sniff::kUnreadable;
  char buffer[kSniffBytes];
  size_t filled = 0;
  while (filled < sizeof buffer) {
    const ssize_t got = ReadSome(file.get(), buffer + filled, sizeof buffer - filled);
    if (got < 0) return Sniff::kUnreadable;
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  return LooksBinary({buffer, filled}) ? Sniff::kBinary : Sniff::kText;
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
  const uint64_t binary_before = list_.binary_files;
  AddFile(argument, static_cast<uint64_t>(facts.st_size), true);
  if (list_.binary_files > binary_before) {
    list_.warnings.push_back("'" + argument + "' is not text and was left out");
  }
  return Done{};
}

void Walker::AddFile(const fs::path& path, uint64_t bytes, bool follow_link) {
  std::string name = NameOf(path);
  // By the raw bytes: two names may differ only in what is not UTF-8.
  if (!seen_.insert(path.lexically_normal().native()).second) return;
  if (bytes == 0) {
    ++list_.empty_files;
    return;
  }
  switch (SniffFile(path.native(), follow_link)) {
    case Sniff::kBinary:
      ++list_.binary_files;
      return;
    case Sniff::kUnreadable:
      return Unreadable(path, std::strerror(errno));
    case Sniff::kText:
      break;
  }
  list_.bytes += bytes;
  list_.files.push_back({path.native(), std::move(name), bytes, follow_link});
}

void Walker::Unreadable(const fs::path& path, const std::string& why) {
  ++list_.unreadable_files;
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
    ++list_.ignored;
  } else if (is_directory) {
    WalkDirectory(path, absolute, depth + 1);
  } else if (S_ISLNK(facts.st_mode)) {
    ++list_.links;
  } else if (S_ISREG(facts.st_mode)) {
    AddFile(path, static_cast<uint64_t>(facts.st_size), false);
  } else {
    ++list_.special_files;
  }
}

void AppendCount(std::string& text, uint64_t count, std::string_view one, std::string_view many) {
  if (count == 0) return;
  text += text.empty() ? "skipped " : ", ";
  text += std::to_string(count) + " ";
  text += count == 1 ? one : many;
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

std::string DescribeSkipped(const SourceList& sources) {
  std::string text;
  AppendCount(text, sources.binary_files, "binary file", "binary files");
  AppendCount(text, sources.unreadable_files, "unreadable", "unreadable");
  AppendCount(text, sources.special_files, "special file", "special files");
  AppendCount(text, sources.links, "link", "links");
  AppendCount(text, sources.ignored, "ignored by .gitignore", "ignored by .gitignore");
  AppendCount(text, sources.empty_files, "empty", "empty");
  return text;
}

ClientResult<Done> ReadDescriptor(int file, const std::string& name,
                                  const std::atomic<bool>* interrupted,
                                  const std::function<bool(std::string_view piece)>& on_piece) {
  std::string buffer(kPieceBytes, '\0');
  while (true) {
    const ssize_t got = read(file, buffer.data(), buffer.size());
    if (interrupted != nullptr && interrupted->load()) {
      return ClientError{kClientInterrupted, "interrupted", "interrupted while reading " + name};
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoFailure("reading", name, errno);
    if (got == 0 || !on_piece({buffer.data(), static_cast<size_t>(got)})) return Done{};
  }
}

ClientResult<Done> ReadSource(const SourceFile& source,
                              const std::function<bool(std::string_view piece)>& on_piece) {
  const Descriptor file(OpenForReading(source.path, source.follow_link));
  if (file.get() < 0) return IoFailure("opening", source.path, errno);
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0) return IoFailure("looking at", source.path, errno);
  if (!S_ISREG(facts.st_mode)) {
    return ClientError{8, "io_error", "'" + source.path + "' is no regular file any more"};
  }
  return ReadDescriptor(file.get(), source.path, nullptr, on_piece);
}

ClientResult<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max) {
  const Descriptor file(OpenForReading(path, true));
  if (file.get() < 0) {
    if (errno == ENOENT) return NotFound("'" + path + "' does not exist");
    return IoFailure("opening", path, errno);
  }
  std::string text;
  auto done = ReadDescriptor(file.get(), path, nullptr, [&](std::string_view piece) {
    text += piece;
    return text.size() <= bytes_max;
  });
  if (!done.ok()) return done.error();
  if (text.size() > bytes_max) {
    return Invalid("'" + path + "' is longer than " + std::to_string(bytes_max) + " bytes");
  }
  return text;
}

}  // namespace corpusd::ctl
