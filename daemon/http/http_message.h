// daemon/http/http_message.h -- an HTTP request as handlers see it, read and checked, and the
// response they give back. Knows no socket and no library. Plain data; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/identity.h"
#include "store/base/result.h"

namespace corpusd {

struct HttpHeader {
  std::string name, value;
};

struct HttpRequest {
  std::string method;                        // "GET"; a HEAD comes as a GET
  std::vector<std::string> segments;         // of the path, decoded: {"v1", "corpora", "a"}
  std::map<std::string, std::string> query;  // decoded; of equal names the first
  std::vector<HttpHeader> headers;
  std::string body;
  std::string id;  // the client's X-Request-Id, or a made one
  Identity identity;
  std::string name;  // what stands for {name} in the route's pattern

  // RETURNS the first header of that name in any case; null: none.
  const std::string* Header(std::string_view header) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<HttpHeader> headers;
  std::string body;
};

// The X-Request-Id that the client gave, if it is fit for a log line; else "".
std::string ClientsId(const HttpRequest& request);

// Whether a response of this status may have a body, and so says how long it is.
inline bool BodyAllowed(int status) { return status != 204 && status != 304; }

bool EqualsIgnoringCase(std::string_view a, std::string_view b);

// Reads the target of a request line into segments and query. kInvalidArgument for what is no path:
// bad escapes, control characters, "." and ".." segments, escaped slashes, text that is not UTF-8.
Status ParseTarget(std::string_view target, HttpRequest* request);

// Refuses what servers and proxies could read in two ways (RFC 9112, 6.1 and 6.3): several
// Content-Lengths or one beside a Transfer-Encoding, any encoding but chunked, no or several Hosts.
// version: 10 or 11.
Status CheckFraming(int version, const std::vector<HttpHeader>& headers);

// Refuses what a web page elsewhere could make a browser send to a loopback port: a Host that is
// neither an IP address nor localhost (a name bound to 127.0.0.1), an Origin other than the Host.
Status CheckOrigin(const std::vector<HttpHeader>& headers);

}  // namespace corpusd
