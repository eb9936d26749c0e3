// daemon/net/io_thread.h -- the one thread of a listener: it accepts clients, and runs their
// sockets, timers and coroutines. What throws there is logged, and the thread goes on. Accept
// before Start, from the thread that starts and stops it; Run from any other than the I/O thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace corpusd {

class IoThread {
 public:
  // name: of the thread, and of its failures in the log: "io" logs io_failed.
  explicit IoThread(std::string name);
  ~IoThread();

  boost::asio::io_context& io();
  // Takes a listening descriptor of the family (AF_UNIX, AF_INET, AF_INET6). admit gets each
  // client's, on the I/O thread, and owns it; TCP's send small pieces at once.
  void Accept(int descriptor, int family, std::function<void(int client)> admit);
  void Start();
  bool started() const;
  // Nobody is admitted any more. REQUIRES: started.
  void StopAccepting();
  // Runs the function on the I/O thread and waits for it. REQUIRES: started.
  void Run(const std::function<void()>& function);
  // What has not run by now never does. No harm if it was not started, or is stopped.
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace corpusd
