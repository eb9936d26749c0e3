#include "daemon/net/io_thread.h"

#include <pthread.h>
#include <sys/socket.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <chrono>
#include <exception>
#include <future>
#include <list>
#include <thread>
#include <utility>

#include "daemon/log.h"

namespace corpusd {

namespace {

namespace asio = boost::asio;
using asio::generic::stream_protocol;
using Acceptor = asio::basic_socket_acceptor<stream_protocol>;

constexpr auto kNoThrow = asio::experimental::as_tuple(asio::use_awaitable);
// Accepting fails when descriptors run out; they come back as clients leave.
constexpr std::chrono::milliseconds kAcceptRetry{100};

}  // namespace

class IoThread::Impl {
 public:
  explicit Impl(std::string name) : name_(std::move(name)) {}
  ~Impl() { Stop(); }

  asio::io_context& io() { return io_; }
  bool started() const { return thread_.joinable(); }

  void Accept(int descriptor, int family, std::function<void(int)> admit) {
    const int protocol = family == AF_UNIX ? 0 : IPPROTO_TCP;
    Acceptor& acceptor =
        acceptors_.emplace_back(io_, stream_protocol(family, protocol), descriptor);
    asio::co_spawn(io_, Loop(acceptor, family != AF_UNIX, std::move(admit)),
                   [this](std::exception_ptr failure) { LogFailure(failure); });
  }

  void Start() {
    thread_ = std::jthread([this] { RunIo(); });
    pthread_setname_np(thread_.native_handle(), name_.c_str());
  }

  void StopAccepting() {
    Run([this] {
      boost::system::error_code ignored;
      for (Acceptor& acceptor : acceptors_) acceptor.close(ignored);
    });
  }

  void Run(const std::function<void()>& function) {
    std::promise<void> done;
    asio::post(io_, [&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }

  void Stop() {
    if (!started()) return;
    io_.stop();
    thread_.join();
  }

 private:
  asio::awaitable<void> Loop(Acceptor& acceptor, bool tcp, std::function<void(int)> admit) {
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
      // Tokens are small and wanted at once.
      if (tcp) socket.set_option(asio::ip::tcp::no_delay(true), released);
      const int client = socket.release(released);
      if (!released) admit(client);
    }
  }

  void LogFailure(const std::exception_ptr& failure) const {
    if (failure == nullptr) return;
    try {  // the root of a coroutine or of the thread
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, name_ + "_failed", {{"error", error.what()}});
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

  const std::string name_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::list<Acceptor> acceptors_;
  std::jthread thread_;
};

IoThread::IoThread(std::string name) : impl_(std::make_unique<Impl>(std::move(name))) {}
IoThread::~IoThread() = default;
asio::io_context& IoThread::io() { return impl_->io(); }
void IoThread::Accept(int descriptor, int family, std::function<void(int)> admit) {
  impl_->Accept(descriptor, family, std::move(admit));
}
void IoThread::Start() { impl_->Start(); }
bool IoThread::started() const { return impl_->started(); }
void IoThread::StopAccepting() { impl_->StopAccepting(); }
void IoThread::Run(const std::function<void()>& function) { impl_->Run(function); }
void IoThread::Stop() { impl_->Stop(); }

}  // namespace corpusd
