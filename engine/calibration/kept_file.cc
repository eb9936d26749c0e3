#include "engine/calibration/kept_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace corpusd {
namespace {

Status WriteDurably(const std::string& path, std::string_view bytes) {
  const auto fail = [&](const char* what) {
    return IoError(path + ": cannot be " + what + ": " + std::strerror(errno));
  };
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (descriptor < 0) return fail("created");
  Status status = OkStatus();
  while (!bytes.empty() && status.ok()) {
    const ssize_t written = write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) status = fail("written");
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
  if (status.ok() && fsync(descriptor) != 0) status = fail("made durable");
  if (close(descriptor) != 0 && status.ok()) status = fail("closed");
  return status;
}

}  // namespace

Status KeepFile(const std::string& folder, const std::string& name, std::string_view bytes) {
  if (folder.empty()) return OkStatus();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string path = folder + "/" + name;
  const std::string draft = path + "." + std::to_string(getpid());
  Status status = WriteDurably(draft, bytes);
  if (status.ok()) {
    std::filesystem::rename(draft, path, error);
    if (error) status = IoError(path + ": cannot be put in place: " + error.message());
  }
  if (!status.ok()) std::filesystem::remove(draft, error);
  return status;
}

std::vector<std::string> KeptFiles(const std::string& folder, std::string_view part,
                                   std::string_view suffix) {
  std::vector<std::string> paths;
  if (folder.empty()) return paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(suffix) && name.find(part) != std::string::npos) {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace corpusd
