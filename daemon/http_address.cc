#include "daemon/http_address.h"

#include <arpa/inet.h>

#include <charconv>

namespace corpusd {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::string_view kInherited = "fd:";

Result<HttpAddress> ParseTcp(std::string_view text) {
  const size_t colon = text.rfind(':');
  HttpAddress address;
  bool good = colon != std::string_view::npos;
  if (good) {
    const std::string_view digits = text.substr(colon + 1);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
    good = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  }
  if (!good) {
    return InvalidArgumentError("'" + std::string(text) +
                                "' is none of HOST:PORT, unix:PATH, fd:NAME and off");
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  address.host = host == "localhost" ? "127.0.0.1" : std::string(host);
  if (IsLoopback(address.host)) return address;
  return InvalidArgumentError("'" + address.host +
                              "' is no loopback address (127.0.0.1, ::1, localhost): whoever can "
                              "connect over TCP may use the daemon");
}

}  // namespace

bool IsLoopback(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

Result<std::vector<HttpAddress>> ParseHttpAddresses(std::string_view text) {
  std::vector<HttpAddress> addresses;
  if (text == "off") return addresses;
  while (true) {
    const std::string_view one = text.substr(0, text.find(','));
    if (one.starts_with(kUnix) && one.size() > kUnix.size()) {
      addresses.push_back({.unix_path = std::string(one.substr(kUnix.size()))});
    } else if (one.starts_with(kInherited) && one.size() > kInherited.size()) {
      addresses.push_back({.inherited = std::string(one.substr(kInherited.size()))});
    } else {
      ASSIGN_OR_RETURN(HttpAddress address, ParseTcp(one));
      addresses.push_back(std::move(address));
    }
    if (one.size() == text.size()) return addresses;
    text.remove_prefix(one.size() + 1);
  }
}

std::string HttpAddressText(const HttpAddress& address) {
  if (!address.unix_path.empty()) return std::string(kUnix) + address.unix_path;
  if (!address.inherited.empty()) return std::string(kInherited) + address.inherited;
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

}  // namespace corpusd
