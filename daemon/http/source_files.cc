#include "daemon/http/source_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace corpusd {
namespace {

namespace fs = std::filesystem;

// A text has no zero byte in its beginning.
constexpr size_t kProbeBytes = 8192;

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
  const int file_;
};

Status Denied(const std::string& path) {
  return {StatusCode::kPermissionDenied,
          "'" + path + "' is not below a folder of http_source_roots"};
}

// Where an open file really is, whatever its name was.
std::string PathOf(int file) {
  std::error_code error;
  return fs::read_symlink("/proc/self/fd/" + std::to_string(file), error).string();
}

bool IsHidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

}  // namespace

Result<SourceFiles> SourceFiles::Open(const std::vector<std::string>& roots) {
  if (roots.empty()) {
    return Status(StatusCode::kPermissionDenied,
                  "this daemon reads no files for HTTP clients: send the texts as 'contents', or "
                  "set http_source_roots");
  }
  std::vector<std::string> real;
  for (const std::string& root : roots) {
    std::error_code error;
    const fs::path path = fs::canonical(root, error);
    if (!error) real.push_back(path.string());
  }
  return SourceFiles(std::move(real));
}

bool SourceFiles::BelowRoot(std::string_view path) const {
  return std::any_of(roots_.begin(), roots_.end(), [&](const std::string& root) {
    return path.starts_with(root) &&
           (path.size() == root.size() || root == "/" || path[root.size()] == '/');
  });
}

Status SourceFiles::Add(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  // Outside of the roots nobody learns what is there.
  if (!path.starts_with('/') || (!error && !BelowRoot(real.string()))) return Denied(path);
  if (error) {
    return BelowRoot(fs::path(path).lexically_normal().string())
               ? NotFoundError("'" + path + "': " + error.message())
               : Denied(path);
  }
  if (fs::is_directory(real, error)) return AddFolder(real.string());
  paths_.push_back(real.string());
  return OkStatus();
}

Status SourceFiles::AddFolder(const std::string& folder) {
  std::error_code error;
  const size_t first = paths_.size();
  const auto skip_denied = fs::directory_options::skip_permission_denied;
  for (auto entry = fs::recursive_directory_iterator(folder, skip_denied, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code unknown;
    const fs::file_status status = entry->symlink_status(unknown);
    if (IsHidden(entry->path())) {
      if (fs::is_directory(status)) entry.disable_recursion_pending();
      skipped_ += fs::is_regular_file(status) ? 1 : 0;
    } else if (fs::is_regular_file(status)) {
      if (paths_.size() == kFilesMax) {
        return InvalidArgumentError("the sources have more than " + std::to_string(kFilesMax) +
                                    " files");
      }
      paths_.push_back(entry->path().string());
    }
  }
  if (error) return IoError("cannot read folder '" + folder + "': " + error.message());
  std::sort(paths_.begin() + static_cast<ptrdiff_t>(first), paths_.end());
  return OkStatus();
}

Status SourceFiles::ReadFile(const std::string& path, const Piece& piece) {
  // A pipe must not block, and a link put there meanwhile must not be followed.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat entry {};
  if (file.get() < 0 || fstat(file.get(), &entry) != 0) {
    ++skipped_;  // it went, or may not be read
    return OkStatus();
  }
  if (!BelowRoot(PathOf(file.get()))) return Denied(path);
  if (!S_ISREG(entry.st_mode)) return InvalidArgumentError("'" + path + "' is no file");
  std::string content;
  bool first = true;
  while (true) {
    std::string next(kPieceBytes, '\0');
    size_t filled = 0;
    ssize_t got = 1;
    while (filled < next.size() && got > 0) {
      got = read(file.get(), next.data() + filled, next.size() - filled);
      if (got < 0) return IoError("cannot read '" + path + "': " + std::strerror(errno));
      filled += static_cast<size_t>(got);
    }
    next.resize(filled);
    if (first) {
      if (std::string_view(next).substr(0, kProbeBytes).find('\0') != std::string_view::npos) {
        ++skipped_;
        return OkStatus();
      }
    } else {
      RETURN_IF_ERROR(piece(path, std::move(content), next.empty()));
      if (next.empty()) return OkStatus();
    }
    first = false;
    content = std::move(next);
    if (content.size() < kPieceBytes) return piece(path, std::move(content), true);
  }
}

Status SourceFiles::Read(const Piece& piece) {
  for (const std::string& path : paths_) RETURN_IF_ERROR(ReadFile(path, piece));
  return OkStatus();
}

}  // namespace corpusd
