#include "ctl_scripted_daemon.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "client/ctl/commands.h"

namespace corpusd::ctl {
namespace {

constexpr int kPollMs = 20;
constexpr int64_t kNowMs = 1790000000000;

bool WaitReadable(int file, const std::atomic<bool>& stopping) {
  while (!stopping) {
    struct pollfd entry = {file, POLLIN, 0};
    if (poll(&entry, 1, kPollMs) > 0) return true;
  }
  return false;
}

bool ReadExactly(int file, char* target, size_t bytes, const std::atomic<bool>& stopping) {
  while (bytes > 0) {
    if (!WaitReadable(file, stopping)) return false;
    const ssize_t got = recv(file, target, bytes, 0);
    if (got <= 0) return false;
    target += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

// The framing is written out here, not taken from the client: four bytes of length, the highest
// first.
bool ReadRequest(int file, v1::Request& request, const std::atomic<bool>& stopping) {
  unsigned char head[4];
  if (!ReadExactly(file, reinterpret_cast<char*>(head), sizeof head, stopping)) return false;
  const size_t bytes =
      (size_t{head[0]} << 24) | (size_t{head[1]} << 16) | (size_t{head[2]} << 8) | size_t{head[3]};
  std::string body(bytes, '\0');
  return ReadExactly(file, body.data(), bytes, stopping) && request.ParseFromString(body);
}

void SendResponse(int file, const v1::Response& response) {
  const std::string body = response.SerializeAsString();
  std::string frame;
  for (const int shift : {24, 16, 8, 0}) frame += static_cast<char>(body.size() >> shift);
  frame += body;
  (void)send(file, frame.data(), frame.size(), MSG_NOSIGNAL);
}

}  // namespace

ScriptedDaemon::ScriptedDaemon(Handler handler) : handler_(std::move(handler)) {
  std::string pattern = (std::filesystem::temp_directory_path() / "ctl-daemon-XXXXXX").string();
  folder_ = mkdtemp(pattern.data());
  path_ = folder_ + "/s";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(listen(listener_, 4), 0);
  thread_ = std::thread([this] { Serve(); });
}

ScriptedDaemon::~ScriptedDaemon() {
  stopping_ = true;
  thread_.join();
  close(listener_);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::vector<v1::Request> ScriptedDaemon::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void ScriptedDaemon::Serve() {
  while (WaitReadable(listener_, stopping_)) {
    const int file = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (file < 0) continue;
    ServeConnection(file);
    close(file);
  }
}

void ScriptedDaemon::ServeConnection(int file) {
  v1::Request request;
  while (ReadRequest(file, request, stopping_)) {
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    for (v1::Response& response : handler_(request)) {
      response.set_id(request.id());
      SendResponse(file, response);
    }
  }
}

v1::Response LastResponse() {
  v1::Response response;
  response.set_end_of_stream(true);
  return response;
}

v1::Response ErrorResponse(uint32_t code, const std::string& code_text,
                           const std::string& message) {
  v1::Response response = LastResponse();
  response.mutable_error()->set_code(code);
  response.mutable_error()->set_code_text(code_text);
  response.mutable_error()->set_message(message);
  return response;
}

CtlRun RunCtl(const std::vector<std::string>& words, const CtlSetting& setting) {
  std::istringstream in(setting.input);
  std::ostringstream out;
  std::ostringstream err;
  Console console{.in = in,
                  .out = out,
                  .err = err,
                  .in_file = setting.in_file,
                  .in_is_terminal = setting.on_terminal,
                  .out_is_terminal = setting.on_terminal,
                  .err_is_terminal = setting.on_terminal,
                  .allows_color = setting.on_terminal,
                  .width = 100,
                  .interrupted = setting.interrupted,
                  .now_ms = [] { return kNowMs; }};
  CtlRun run;
  run.exit_code = RunCorpusctl(words, console);
  run.out = out.str();
  run.err = err.str();
  return run;
}

}  // namespace corpusd::ctl
