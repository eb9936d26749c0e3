// daemon/net/inherited_socket.h -- listening sockets that the service manager made before it
// started the daemon (sd_listen_fds_with_names(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, from
// descriptor 3 on). So clients can connect at any time, none meets a missing socket while the
// daemon is started anew, and the daemon needs no right to open one. Each is given away once. Any
// thread, one at a time; owns nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "daemon/http_address.h"

namespace corpusd {

struct InheritedListener {
  int descriptor = -1;  // set to close on exec and not to block
  HttpAddress address;  // where it listens
};

// The one that listens there; nothing if there is none. The file and permissions of a Unix socket
// are the service manager's.
std::optional<int> TakeInherited(const HttpAddress& address);
// All that the manager calls so (FileDescriptorName=).
std::vector<InheritedListener> TakeInheritedNamed(const std::string& name);

}  // namespace corpusd
