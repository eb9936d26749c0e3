#include "daemon/net/inherited_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

// Of descriptor kFirstDescriptor + index; "" if the manager says none.
std::string NameOf(int index) {
  const char* const text = std::getenv("LISTEN_FDNAMES");
  std::string_view names = text == nullptr ? "" : text;
  for (; index > 0; --index) {
    const size_t colon = names.find(':');
    if (colon == std::string_view::npos) return "";
    names.remove_prefix(colon + 1);
  }
  return std::string(names.substr(0, names.find(':')));
}

// Where a descriptor listens; nothing if it does not, or nowhere that is known here.
std::optional<HttpAddress> ListeningAddress(int descriptor) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) {
    return std::nullopt;
  }
  sockaddr_storage storage{};
  size = sizeof(storage);
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return std::nullopt;
  }
  HttpAddress address;
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (storage.ss_family == AF_UNIX) {
    sockaddr_un local{};
    std::memcpy(&local, &storage, sizeof(local));
    address.unix_path.assign(local.sun_path, strnlen(local.sun_path, sizeof(local.sun_path)));
    if (address.unix_path.empty()) return std::nullopt;
  } else if (storage.ss_family == AF_INET) {
    sockaddr_in local{};
    std::memcpy(&local, &storage, sizeof(local));
    inet_ntop(AF_INET, &local.sin_addr, host.data(), host.size());
    address.port = ntohs(local.sin_port);
  } else if (storage.ss_family == AF_INET6) {
    sockaddr_in6 local{};
    std::memcpy(&local, &storage, sizeof(local));
    inet_ntop(AF_INET6, &local.sin6_addr, host.data(), host.size());
    address.port = ntohs(local.sin6_port);
  } else {
    return std::nullopt;
  }
  address.host = host.data();
  return address;
}

template <typename Wanted>
std::vector<InheritedListener> TakeWhere(const Wanted& wanted) {
  std::vector<InheritedListener> taken;
  if (NumberOf("LISTEN_PID") != getpid()) return taken;
  const int count = std::min(NumberOf("LISTEN_FDS"), kDescriptorsMax);
  for (int index = 0; index < count; ++index) {
    const int descriptor = kFirstDescriptor + index;
    const int closes = fcntl(descriptor, F_GETFD);
    // The manager leaves them open on exec; those that are not are given away.
    if (closes < 0 || (closes & FD_CLOEXEC) != 0) continue;
    const auto address = ListeningAddress(descriptor);
    if (!address || !wanted(index, *address)) continue;
    const int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      continue;
    }
    taken.push_back({descriptor, *address});
  }
  return taken;
}

}  // namespace

std::optional<int> TakeInherited(const HttpAddress& address) {
  bool found = false;
  const auto taken = TakeWhere([&](int /*index*/, const HttpAddress& there) {
    return !found && (found = there == address);
  });
  return taken.empty() ? std::nullopt : std::optional<int>(taken.front().descriptor);
}

std::vector<InheritedListener> TakeInheritedNamed(const std::string& name) {
  return TakeWhere([&](int index, const HttpAddress& /*there*/) { return NameOf(index) == name; });
}

}  // namespace corpusd
