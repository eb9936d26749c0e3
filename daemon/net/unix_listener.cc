#include "daemon/net/unix_listener.h"

#include <pthread.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <condition_variable>
#include <exception>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "daemon/log.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/net/inherited_socket.h"
#include "daemon/net/socket_file.h"

namespace corpusd {
namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;

constexpr auto kNoThrow = asio::experimental::as_tuple(asio::use_awaitable);
// Accepting fails when descriptors run out; they come back as clients leave.
constexpr std::chrono::milliseconds kAcceptRetry{100};

class Listener : public UnixListener {
 public:
  Listener(const ListenerOptions& options, const Services& services, SocketFile file)
      : options_(options),
        services_(services),
        file_(std::move(file)),
        acceptor_(io_, stream_protocol(), file_->ReleaseDescriptor()),
        retry_timer_(io_) {
    asio::co_spawn(io_, AcceptLoop(), [](std::exception_ptr failure) { LogFailure(failure); });
    thread_ = std::jthread([this] { RunIo(); });
    pthread_setname_np(thread_.native_handle(), "io");
  }

  ~Listener() override {
    Close(std::chrono::milliseconds::zero());
    io_.stop();
    thread_.join();
  }

  void StopAccepting() override {
    OnIoThread([this] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      retry_timer_.cancel();
    });
    std::lock_guard lock(mutex_);
    file_.reset();
  }

  void CancelCalls(const Status& why) override {
    OnIoThread([this, why] {
      for (const auto& [id, connection] : connections_) connection->CancelCalls(why);
    });
  }

  void Close(std::chrono::milliseconds patience) override {
    StopAccepting();
    OnIoThread(
        [this] { ForEach([](RpcConnection& connection) { connection.CloseAfterFlush(); }); });
    {
      std::unique_lock lock(mutex_);
      became_empty_.wait_for(lock, patience, [&] { return count_ == 0; });
    }
    OnIoThread([this] { ForEach([](RpcConnection& connection) { connection.Close(); }); });
  }

  size_t connections() const override {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  static void LogFailure(const std::exception_ptr& failure) {
    if (failure == nullptr) return;
    try {  // the root of a coroutine or of the thread
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "io_failed", {{"error", error.what()}});
    }
  }

  void RunIo() {
    for (;;) {
      try {
        io_.run();
        return;
      } catch (...) {
        LogFailure(std::current_exception());
      }
    }
  }

  // Runs the function on the I/O thread and waits for it.
  template <typename Function>
  void OnIoThread(Function function) {
    std::promise<void> done;
    asio::post(io_, [&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }

  // Closing removes a connection from the map.
  template <typename Function>
  void ForEach(Function function) {
    const auto connections = connections_;
    for (const auto& [id, connection] : connections) function(*connection);
  }

  asio::awaitable<void> AcceptLoop() {
    while (acceptor_.is_open()) {
      auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
      if (error == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
      if (error) {
        Log(LogLevel::kWarn, "accept_failed", {{"error", error.message()}});
        retry_timer_.expires_after(kAcceptRetry);
        co_await retry_timer_.async_wait(kNoThrow);
        continue;
      }
      boost::system::error_code released;
      const int descriptor = socket.release(released);
      if (!released) Admit(descriptor);
    }
  }

  void Admit(int descriptor) {
    const uint64_t id = next_id_++;
    auto connection = RpcConnection::Make(io_, descriptor, options_.connection, services_,
                                          [this, id] { Forget(id); });
    const size_t open = connections_.size();
    connections_.emplace(id, connection);
    {
      std::lock_guard lock(mutex_);
      count_ = connections_.size();
    }
    services_.metrics.OnConnected("rpc");
    if (open >= options_.connections_max) {
      services_.metrics.OnRefusedConnection("rpc");
      connection->Refuse(UnavailableError(std::to_string(open) +
                                          " clients are connected, which is the limit; try again "
                                          "later or raise max_connections"));
    } else {
      connection->Start();
    }
  }

  void Forget(uint64_t id) {
    if (connections_.erase(id) > 0) services_.metrics.OnDisconnected("rpc");
    {
      std::lock_guard lock(mutex_);
      count_ = connections_.size();
    }
    became_empty_.notify_all();
  }

  const ListenerOptions options_;
  const Services& services_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::optional<SocketFile> file_;  // guarded by mutex_ after the constructor
  stream_protocol::acceptor acceptor_;
  asio::steady_timer retry_timer_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, std::shared_ptr<RpcConnection>> connections_;  // on the I/O thread only

  mutable std::mutex mutex_;
  std::condition_variable became_empty_;
  size_t count_ = 0;
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<UnixListener>> UnixListener::Open(const ListenerOptions& options,
                                                         const Services& services) {
  if (const auto inherited = InheritedUnixListener(options.socket_path)) {
    return std::make_unique<Listener>(options, services, SocketFile::Adopt(*inherited));
  }
  ASSIGN_OR_RETURN(SocketFile file, SocketFile::Listen(options.socket_path, options.socket_mode));
  return std::make_unique<Listener>(options, services, std::move(file));
}

}  // namespace corpusd
