#include "daemon/service_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace corpusd {

Status NotifyServiceManager(std::string_view state) {
  const char* variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || *variable == '\0') return OkStatus();
  std::string path = variable;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return IoError("NOTIFY_SOCKET '" + path + "' is too long for a socket path");
  }
  if (path[0] == '@') path[0] = '\0';  // Linux's abstract namespace
  path.copy(address.sun_path, path.size());
  const int file = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (file < 0) return IoError(std::string("cannot make a socket: ") + std::strerror(errno));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const ssize_t sent = sendto(file, state.data(), state.size(), MSG_NOSIGNAL,
                              reinterpret_cast<const sockaddr*>(&address), length);
  const int error = errno;
  close(file);
  if (sent == static_cast<ssize_t>(state.size())) return OkStatus();
  return IoError("cannot notify '" + std::string(variable) + "': " + std::strerror(error));
}

std::chrono::milliseconds WatchdogInterval() {
  const auto number = [](const char* variable) {
    const char* const text = std::getenv(variable);
    uint64_t value = 0;
    if (text != nullptr) (void)std::from_chars(text, text + std::strlen(text), value);
    return value;
  };
  const uint64_t pid = number("WATCHDOG_PID");
  if (pid != 0 && pid != static_cast<uint64_t>(getpid())) return {};
  return std::chrono::milliseconds(number("WATCHDOG_USEC") / 2000);
}

}  // namespace corpusd
