#include "daemon/net/http_listener.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <condition_variable>
#include <exception>
#include <future>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "daemon/log.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/net/socket_file.h"

namespace corpusd {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using UnixAcceptor = asio::local::stream_protocol::acceptor;

constexpr auto kNoThrow = asio::experimental::as_tuple(asio::use_awaitable);
// Accepting fails when descriptors run out; they come back as clients leave.
constexpr std::chrono::milliseconds kAcceptRetry{100};

class Listener : public HttpListener {
 public:
  Listener(const HttpListenerOptions& options, HttpService& service)
      : options_(options), service_(service) {}

  ~Listener() override {
    if (!thread_.joinable()) return;
    Close(std::chrono::milliseconds::zero());
    io_.stop();
    thread_.join();
  }

  Status Bind() {
    for (const HttpAddress& address : options_.addresses) {
      RETURN_IF_ERROR(address.unix_path.empty() ? BindTcp(address) : BindUnix(address));
    }
    for (UnixAcceptor& acceptor : unix_acceptors_) Spawn(acceptor, AF_UNIX);
    for (tcp::acceptor& acceptor : tcp_acceptors_) {
      Spawn(acceptor, acceptor.local_endpoint().protocol().family());
    }
    thread_ = std::jthread([this] { RunIo(); });
    pthread_setname_np(thread_.native_handle(), "http");
    return OkStatus();
  }

  std::vector<std::string> addresses() const override { return texts_; }

  void StopAccepting() override {
    OnIoThread([this] {
      boost::system::error_code ignored;
      for (UnixAcceptor& acceptor : unix_acceptors_) acceptor.close(ignored);
      for (tcp::acceptor& acceptor : tcp_acceptors_) acceptor.close(ignored);
    });
    std::lock_guard lock(mutex_);
    files_.clear();
  }

  void CancelCalls(const Status& why) override {
    OnIoThread(
        [this, why] { ForEach([&](HttpConnection& connection) { connection.CancelCalls(why); }); });
  }

  void Close(std::chrono::milliseconds patience) override {
    StopAccepting();
    OnIoThread(
        [this] { ForEach([](HttpConnection& connection) { connection.CloseAfterFlush(); }); });
    {
      std::unique_lock lock(mutex_);
      became_empty_.wait_for(lock, patience, [&] { return count_ == 0; });
    }
    OnIoThread([this] { ForEach([](HttpConnection& connection) { connection.Close(); }); });
  }

  size_t connections() const override {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  Status BindUnix(const HttpAddress& address) {
    ASSIGN_OR_RETURN(SocketFile file, SocketFile::Listen(address.unix_path, options_.socket_mode));
    unix_acceptors_.emplace_back(io_, asio::local::stream_protocol(), file.ReleaseDescriptor());
    files_.push_back(std::move(file));
    texts_.push_back(HttpAddressText(address));
    return OkStatus();
  }

  Status BindTcp(HttpAddress address) {
    boost::system::error_code error;
    const auto host = asio::ip::make_address(address.host, error);
    tcp::acceptor acceptor(io_);
    const tcp::endpoint endpoint(host, address.port);
    if (!error) acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) address.port = acceptor.local_endpoint(error).port();
    if (error) {
      const std::string text = "cannot listen on " + HttpAddressText(address) + ": ";
      if (error != asio::error::address_in_use) return IoError(text + error.message());
      return AlreadyExistsError(text + "another program does; give another --http");
    }
    tcp_acceptors_.push_back(std::move(acceptor));
    texts_.push_back(HttpAddressText(address));
    return OkStatus();
  }

  static void LogFailure(const std::exception_ptr& failure) {
    if (failure == nullptr) return;
    try {  // the root of a coroutine or of the thread
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "http_failed", {{"error", error.what()}});
    }
  }

  template <typename Acceptor>
  void Spawn(Acceptor& acceptor, int family) {
    asio::co_spawn(io_, AcceptLoop(acceptor, family),
                   [](std::exception_ptr failure) { LogFailure(failure); });
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

  template <typename Acceptor>
  asio::awaitable<void> AcceptLoop(Acceptor& acceptor, int family) {
    asio::steady_timer retry(io_);
    while (acceptor.is_open()) {
      auto [error, socket] = co_await acceptor.async_accept(kNoThrow);
      if (error == asio::error::operation_aborted || !acceptor.is_open()) co_return;
      if (error) {
        Log(LogLevel::kWarn, "accept_failed", {{"error", error.message()}});
        retry.expires_after(kAcceptRetry);
        co_await retry.async_wait(kNoThrow);
        continue;
      }
      boost::system::error_code released;
      if constexpr (std::is_same_v<Acceptor, tcp::acceptor>) {
        // Tokens are small and wanted at once.
        socket.set_option(tcp::no_delay(true), released);
      }
      const int descriptor = socket.release(released);
      if (!released) Admit(descriptor, family);
    }
  }

  void Admit(int descriptor, int family) {
    // Those who are one too many get a word, as long as they are not a flood.
    if (connections_.size() >= 2 * options_.connections_max) {
      close(descriptor);
      return;
    }
    const uint64_t id = next_id_++;
    auto connection = HttpConnection::Make(io_, descriptor, family, options_.connection, service_,
                                           [this, id] { Forget(id); });
    const size_t open = connections_.size();
    connections_.emplace(id, connection);
    {
      std::lock_guard lock(mutex_);
      count_ = connections_.size();
    }
    service_.metrics().OnConnected("http");
    if (open >= options_.connections_max) {
      service_.metrics().OnRefusedConnection("http");
      connection->Refuse(UnavailableError(std::to_string(open) +
                                          " clients are connected, which is the limit; try again "
                                          "later or raise http_max_connections"));
    } else {
      connection->Start();
    }
  }

  void Forget(uint64_t id) {
    if (connections_.erase(id) > 0) service_.metrics().OnDisconnected("http");
    {
      std::lock_guard lock(mutex_);
      count_ = connections_.size();
    }
    became_empty_.notify_all();
  }

  const HttpListenerOptions options_;
  HttpService& service_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::vector<SocketFile> files_;  // guarded by mutex_ once the thread runs
  std::list<UnixAcceptor> unix_acceptors_;
  std::list<tcp::acceptor> tcp_acceptors_;
  std::vector<std::string> texts_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, std::shared_ptr<HttpConnection>> connections_;  // on the I/O thread only

  mutable std::mutex mutex_;
  std::condition_variable became_empty_;
  size_t count_ = 0;
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpListener>> HttpListener::Open(const HttpListenerOptions& options,
                                                         HttpService& service) {
  auto listener = std::make_unique<Listener>(options, service);
  RETURN_IF_ERROR(listener->Bind());
  return listener;
}

}  // namespace corpusd
