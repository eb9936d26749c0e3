#include "daemon/access/tenant_secret.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr size_t kTextBytes = 2 * kSecretBytes + 1;  // hex and a line's end

Status Failed(const std::string& what, const std::string& path) {
  return IoError("cannot " + what + " '" + path + "': " + std::strerror(errno));
}

// Closes itself.
class File {
 public:
  File(const std::string& path, int flags) : descriptor_(open(path.c_str(), flags, 0600)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  const int descriptor_;
};

// Whole or not at all: under another name first.
Status MakeSecret(const std::string& data_dir, const std::string& path) {
  std::array<uint8_t, kSecretBytes> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return Failed("get random bytes for", path);
  }
  const std::string text = HexText(bytes) + "\n";
  const std::string made = path + ".new";
  {
    const File file(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    if (file.descriptor() < 0) return Failed("make", made);
    if (fchmod(file.descriptor(), 0600) != 0 ||
        write(file.descriptor(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        fsync(file.descriptor()) != 0) {
      return Failed("write", made);
    }
  }
  if (rename(made.c_str(), path.c_str()) != 0) return Failed("make", path);
  const File folder(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder.descriptor() < 0 || fsync(folder.descriptor()) != 0) return Failed("sync", data_dir);
  return OkStatus();
}

}  // namespace

Result<std::string> ReadTenantSecret(const std::string& data_dir) {
  const std::string path = data_dir + "/tenant.secret";
  if (access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    RETURN_IF_ERROR(MakeSecret(data_dir, path));
  }
  const File file(path, O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (file.descriptor() < 0 || fstat(file.descriptor(), &info) != 0) return Failed("read", path);
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Status(StatusCode::kPermissionDenied,
                  "'" + path + "' must be its owner's alone: chmod 600 it");
  }
  std::array<char, kTextBytes + 1> text{};
  const ssize_t got = read(file.descriptor(), text.data(), text.size());
  if (got < 0) return Failed("read", path);
  const std::string secret(text.data(), static_cast<size_t>(got));
  const bool hex = secret.find_first_not_of("0123456789abcdef") == kTextBytes - 1;
  if (secret.size() != kTextBytes || !hex || secret.back() != '\n') {
    return CorruptionError("'" + path +
                           "' is not as corpusd wrote it: put back a copy of it, or "
                           "remove it and the corpora made with it");
  }
  return secret.substr(0, kTextBytes - 1);
}

}  // namespace corpusd
