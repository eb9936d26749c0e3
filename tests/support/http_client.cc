#include "tests/support/http_client.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace corpusd {
namespace {

constexpr int kPatienceSeconds = 20;

int Connect(const std::string& address) {
  int file = -1;
  int result = -1;
  if (address.starts_with("unix:")) {
    file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un target{};
    target.sun_family = AF_UNIX;
    address.copy(target.sun_path, sizeof(target.sun_path) - 1, 5);
    result = connect(file, reinterpret_cast<const sockaddr*>(&target), sizeof(target));
  } else {
    file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in target{};
    target.sin_family = AF_INET;
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port =
        htons(static_cast<uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1)));
    result = connect(file, reinterpret_cast<const sockaddr*>(&target), sizeof(target));
  }
  if (result != 0) {
    close(file);
    return -1;
  }
  const timeval patience{kPatienceSeconds, 0};
  setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(file, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return file;
}

}  // namespace

HttpClient::HttpClient(const std::string& address) : file_(Connect(address)) {}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (file_ >= 0) close(std::exchange(file_, -1));
}

bool HttpClient::Write(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t wrote = send(file_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (wrote <= 0) return false;
    sent += static_cast<size_t>(wrote);
  }
  return true;
}

bool HttpClient::Fill() {
  char piece[16384];
  const ssize_t got = recv(file_, piece, sizeof(piece), 0);
  if (got <= 0) return false;
  buffer_.append(piece, static_cast<size_t>(got));
  return true;
}

std::string HttpClient::ReadUntil(const std::string& text) {
  size_t at = 0;
  while ((at = buffer_.find(text)) == std::string::npos) {
    if (!Fill()) return std::exchange(buffer_, "");
  }
  std::string read = buffer_.substr(0, at + text.size());
  buffer_.erase(0, read.size());
  return read;
}

HttpReply HttpClient::Read(bool head_only) {
  HttpReply reply;
  const std::string head = ReadUntil("\r\n\r\n");
  if (!head.starts_with("HTTP/1.") || head.size() < 12) return reply;
  reply.status = std::atoi(head.c_str() + 9);
  size_t line = head.find("\r\n") + 2;
  while (line < head.size() - 2) {
    const size_t end = head.find("\r\n", line);
    const size_t colon = head.find(':', line);
    std::string name = head.substr(line, colon - line);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    const size_t value = head.find_first_not_of(' ', colon + 1);
    reply.headers[name] = head.substr(value, end - value);
    line = end + 2;
  }
  const bool bodiless = reply.status == 100 || reply.status == 204 || reply.status == 304;
  if (head_only || bodiless) return reply;
  if (reply.headers["transfer-encoding"] == "chunked") {
    while (true) {
      const std::string size = ReadUntil("\r\n");
      const size_t bytes = std::strtoul(size.c_str(), nullptr, 16);
      while (buffer_.size() < bytes + 2 && Fill()) {
      }
      reply.body += buffer_.substr(0, bytes);
      buffer_.erase(0, bytes + 2);
      if (bytes == 0) return reply;
    }
  }
  const bool counted = reply.headers.count("content-length") > 0;
  const size_t bytes =
      counted ? std::strtoul(reply.headers["content-length"].c_str(), nullptr, 10) : SIZE_MAX;
  while (buffer_.size() < bytes && Fill()) {
  }
  reply.body = buffer_.substr(0, bytes);
  buffer_.erase(0, reply.body.size());
  return reply;
}

bool HttpClient::Closed() {
  char byte = 0;
  ssize_t got = 0;
  while ((got = recv(file_, &byte, 1, 0)) > 0) {
  }
  return got == 0 || errno == ECONNRESET;
}

HttpReply HttpClient::Send(const std::string& method, const std::string& path,
                           const std::string& body, const std::string& headers) {
  std::string request = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers;
  if (!body.empty() || method == "POST") {
    request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  Write(request + "\r\n" + body);
  return Read(method == "HEAD");
}

}  // namespace corpusd
