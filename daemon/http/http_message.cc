#include "daemon/http/http_message.h"

#include <algorithm>
#include <charconv>

#include "client/wire/utf8.h"

namespace corpusd {
namespace {

constexpr size_t kSegmentsMax = 16;
constexpr size_t kQueryFieldsMax = 64;
constexpr size_t kIdBytesMax = 64;

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

Result<std::string> Decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      unsigned byte = 0;
      const std::string_view digits = text.substr(i + 1, 2);
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
      if (digits.size() != 2 || parsed.ptr != digits.data() + 2) {
        return InvalidArgumentError("the request's path has a broken %-escape");
      }
      c = static_cast<char>(byte);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (IsControl(c)) return InvalidArgumentError("the request's path has a control character");
    decoded.push_back(c);
  }
  if (!IsUtf8(decoded)) return InvalidArgumentError("the request's path is not UTF-8");
  return decoded;
}

Status ParsePath(std::string_view path, HttpRequest* request) {
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::string_view raw = path.substr(0, path.find('/'));
    path.remove_prefix(raw.size());
    ASSIGN_OR_RETURN(std::string segment, Decode(raw, false));
    if (segment == "." || segment == ".." || segment.find('/') != std::string::npos) {
      return InvalidArgumentError("the request's path has a '.', '..' or '/' inside a segment");
    }
    if (request->segments.size() == kSegmentsMax) {
      return InvalidArgumentError("the request's path has too many segments");
    }
    request->segments.push_back(std::move(segment));
  }
  return OkStatus();
}

Status ParseQuery(std::string_view query, HttpRequest* request) {
  while (!query.empty()) {
    const std::string_view field = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), field.size() + 1));
    if (request->query.size() == kQueryFieldsMax) {
      return InvalidArgumentError("the request's query has too many fields");
    }
    const size_t equals = std::min(field.find('='), field.size());
    ASSIGN_OR_RETURN(std::string name, Decode(field.substr(0, equals), true));
    ASSIGN_OR_RETURN(std::string value,
                     Decode(field.substr(std::min(field.size(), equals + 1)), true));
    request->query.emplace(std::move(name), std::move(value));
  }
  return OkStatus();
}

std::string_view WithoutPort(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, std::min(host.find(']') + 1, host.size()));
  return host.substr(0, host.rfind(':') == std::string_view::npos ? host.size() : host.rfind(':'));
}

// Digits and dots, or brackets around an IPv6 address: a name that a DNS server answers for has a
// letter.
bool IsAddressOrLocalhost(std::string_view host) {
  const std::string_view name = WithoutPort(host);
  if (EqualsIgnoringCase(name, "localhost")) return true;
  if (name.starts_with('[') && name.ends_with(']')) return true;
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
}

}  // namespace

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return LowerAscii(x) == LowerAscii(y); });
}

const std::string* HttpRequest::Header(std::string_view header) const {
  for (const HttpHeader& entry : headers) {
    if (EqualsIgnoringCase(entry.name, header)) return &entry.value;
  }
  return nullptr;
}

std::string ClientsId(const HttpRequest& request) {
  const std::string* const id = request.Header("X-Request-Id");
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  const bool good =
      id != nullptr && id->size() <= kIdBytesMax && std::all_of(id->begin(), id->end(), fits);
  return good ? *id : "";
}

Status ParseTarget(std::string_view target, HttpRequest* request) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() < scheme.size() ||
        !EqualsIgnoringCase(target.substr(0, scheme.size()), scheme)) {
      continue;
    }
    target.remove_prefix(scheme.size());  // the absolute form, as proxies get it
    target.remove_prefix(std::min(target.find_first_of("/?"), target.size()));
    if (target.empty()) target = "/";
  }
  if (!target.starts_with('/')) {
    return InvalidArgumentError("the request's target is no path beginning with '/'");
  }
  target = target.substr(0, target.find('#'));
  const std::string_view path = target.substr(0, target.find('?'));
  RETURN_IF_ERROR(ParsePath(path, request));
  if (request->segments.size() == 1 && request->segments[0].empty()) request->segments.clear();
  return ParseQuery(target.substr(std::min(target.size(), path.size() + 1)), request);
}

Status CheckFraming(int version, const std::vector<HttpHeader>& headers) {
  size_t hosts = 0, lengths = 0, encodings = 0;
  bool chunked = true;
  for (const HttpHeader& header : headers) {
    if (EqualsIgnoringCase(header.name, "Host")) ++hosts;
    if (EqualsIgnoringCase(header.name, "Content-Length")) {
      ++lengths;
      const bool digits =
          !header.value.empty() && std::all_of(header.value.begin(), header.value.end(),
                                               [](char c) { return c >= '0' && c <= '9'; });
      if (!digits) return InvalidArgumentError("Content-Length is no whole number");
    }
    if (EqualsIgnoringCase(header.name, "Transfer-Encoding")) {
      ++encodings;
      chunked = chunked && EqualsIgnoringCase(header.value, "chunked");
    }
  }
  if (lengths > 1 || (lengths > 0 && encodings > 0)) {
    return InvalidArgumentError("a request has one Content-Length or one Transfer-Encoding");
  }
  if (encodings > 1 || !chunked || (encodings > 0 && version < 11)) {
    return InvalidArgumentError("no Transfer-Encoding but chunked, once, in HTTP/1.1, is taken");
  }
  if (hosts > 1 || (hosts == 0 && version >= 11)) {
    return InvalidArgumentError("a request of HTTP/1.1 has one Host");
  }
  return OkStatus();
}

Status CheckOrigin(const std::vector<HttpHeader>& headers) {
  std::string_view host, origin;
  for (const HttpHeader& header : headers) {
    if (EqualsIgnoringCase(header.name, "Host")) host = header.value;
    if (EqualsIgnoringCase(header.name, "Origin")) origin = header.value;
  }
  if (!host.empty() && !IsAddressOrLocalhost(host)) {
    return {StatusCode::kPermissionDenied,
            "the Host '" + ToUtf8(host) + "' is neither an IP address nor localhost"};
  }
  const size_t scheme = origin.find("://");
  const std::string_view from =
      scheme == std::string_view::npos ? origin : origin.substr(scheme + 3);
  if (!origin.empty() && !EqualsIgnoringCase(from, host)) {
    return {StatusCode::kPermissionDenied,
            "a page of '" + ToUtf8(origin) + "' may not use this daemon"};
  }
  return OkStatus();
}

}  // namespace corpusd
