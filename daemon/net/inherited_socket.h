// daemon/net/inherited_socket.h -- listening sockets that the service manager made before it
// started the daemon (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, from descriptor 3 on). So clients
// can connect at any time, and none meets a missing socket while the daemon is started anew. Any
// thread; owns nothing.
#pragma once

#include <optional>
#include <string>

namespace corpusd {

// The inherited descriptor that listens on this Unix socket, set to close on exec and not to block;
// nothing if there is none. Its file and permissions are the service manager's.
std::optional<int> InheritedUnixListener(const std::string& path);

}  // namespace corpusd
