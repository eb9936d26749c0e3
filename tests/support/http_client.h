// tests/support/http_client.h -- a plain HTTP client over one blocking socket, for tests that also
// want to misbehave. Reads for 20 s at most. One thread.
#pragma once

#include <map>
#include <string>

namespace corpusd {

struct HttpReply {
  int status = 0;                              // 0: the connection ended before a response
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

class HttpClient {
 public:
  // "unix:PATH" or "127.0.0.1:PORT".
  explicit HttpClient(const std::string& address);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool connected() const { return file_ >= 0; }
  // RETURNS false if the other side takes no more.
  bool Write(const std::string& bytes);
  HttpReply Read(bool head_only = false);
  // Reads until this text has come. RETURNS what came before and with it; less at the end.
  std::string ReadUntil(const std::string& text);
  // RETURNS true if the other side closes within 20 s.
  bool Closed();
  void Close();

  HttpReply Get(const std::string& path) { return Send("GET", path, ""); }
  HttpReply Post(const std::string& path, const std::string& body) {
    return Send("POST", path, body);
  }
  // headers: lines with their ends.
  HttpReply Send(const std::string& method, const std::string& path, const std::string& body,
                 const std::string& headers = "");

 private:
  bool Fill();

  int file_ = -1;
  std::string buffer_;
};

}  // namespace corpusd
