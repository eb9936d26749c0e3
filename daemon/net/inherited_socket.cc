#include "daemon/net/inherited_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace corpusd {
namespace {

constexpr int kFirstDescriptor = 3;
constexpr int kDescriptorsMax = 64;

int NumberOf(const char* variable) {
  const char* const text = std::getenv(variable);
  int number = 0;
  if (text == nullptr) return 0;
  const std::string_view view(text);
  const auto parsed = std::from_chars(view.data(), view.data() + view.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == view.data() + view.size() ? number : 0;
}

bool ListensOn(int descriptor, const std::string& path) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) {
    return false;
  }
  sockaddr_un address{};
  size = sizeof(address);
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  if (address.sun_family != AF_UNIX) return false;
  const size_t length = strnlen(address.sun_path, sizeof(address.sun_path));
  return path == std::string_view(address.sun_path, length);
}

}  // namespace

std::optional<int> InheritedUnixListener(const std::string& path) {
  if (NumberOf("LISTEN_PID") != getpid()) return std::nullopt;
  const int count = std::min(NumberOf("LISTEN_FDS"), kDescriptorsMax);
  for (int descriptor = kFirstDescriptor; descriptor < kFirstDescriptor + count; ++descriptor) {
    if (!ListensOn(descriptor, path)) continue;
    const int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      return std::nullopt;
    }
    return descriptor;
  }
  return std::nullopt;
}

}  // namespace corpusd
