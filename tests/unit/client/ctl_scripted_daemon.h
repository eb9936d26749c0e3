// tests/unit/client/ctl_scripted_daemon.h -- ScriptedDaemon: a socket that answers corpusctl's
// requests with what a test says, so that every verb can be run without a model. Not a model of
// corpusd: it keeps no state. The handler runs on the daemon's own thread; RunCtl is called from
// the test's.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd::ctl {

class ScriptedDaemon {
 public:
  // RETURNS the responses to one request, in order; their ids are filled in. None: silence.
  using Handler = std::function<std::vector<v1::Response>(const v1::Request& request)>;

  explicit ScriptedDaemon(Handler handler);
  ~ScriptedDaemon();
  ScriptedDaemon(const ScriptedDaemon&) = delete;
  ScriptedDaemon& operator=(const ScriptedDaemon&) = delete;

  const std::string& socket_path() const { return path_; }
  std::vector<v1::Request> requests();

 private:
  void Serve();
  void ServeConnection(int file);

  Handler handler_;
  std::string folder_;
  std::string path_;
  int listener_ = -1;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<v1::Request> requests_;
  std::thread thread_;
};

// A response that ends its stream, to be filled in.
v1::Response LastResponse();
v1::Response ErrorResponse(uint32_t code, const std::string& code_text, const std::string& message);

struct CtlRun {
  int exit_code = -1;
  std::string out;
  std::string err;
};

struct CtlSetting {
  std::string input = {};  // of the prompt
  bool on_terminal = false;
  int in_file = -1;
  const std::atomic<bool>* interrupted = nullptr;
};

// The whole program, in this process.
CtlRun RunCtl(const std::vector<std::string>& words, const CtlSetting& setting = {});

}  // namespace corpusd::ctl
