// daemon/http_address.h -- where HTTP listens: "127.0.0.1:8040", "[::1]:8040", "unix:PATH", and
// "fd:NAME" for what a service manager hands over under this name; several with commas between.
// Values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

struct HttpAddress {
  std::string unix_path = {};  // "": TCP
  std::string host = {};       // a loopback address, as text
  uint16_t port = 0;           // 0: one that is free
  std::string inherited = {};  // the name of inherited sockets; then all else is empty
  bool operator==(const HttpAddress&) const = default;
};

// RETURNS none for "off". kInvalidArgument, saying what is wrong, also for an address that other
// machines could reach: over TCP nobody is known.
Result<std::vector<HttpAddress>> ParseHttpAddresses(std::string_view text);

// Whether no other machine can reach it.
bool IsLoopback(const std::string& host);

// As it is written in the option.
std::string HttpAddressText(const HttpAddress& address);

}  // namespace corpusd
