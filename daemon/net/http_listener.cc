#include "daemon/net/http_listener.h"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <mutex>
#include <optional>
#include <utility>

#include "daemon/metrics/daemon_metrics.h"
#include "daemon/net/inherited_socket.h"
#include "daemon/net/io_thread.h"
#include "daemon/net/open_connections.h"
#include "daemon/net/socket_file.h"

namespace corpusd {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

class Listener : public HttpListener {
 public:
  Listener(const HttpListenerOptions& options, HttpService& service)
      : options_(options), service_(service) {}

  ~Listener() override {
    if (!thread_.started()) return;
    Close(std::chrono::milliseconds::zero());
    thread_.Stop();
  }

  Status Bind() {
    for (const HttpAddress& address : options_.addresses) {
      RETURN_IF_ERROR(!address.inherited.empty()  ? Adopt(address.inherited)
                      : address.unix_path.empty() ? BindTcp(address)
                                                  : BindUnix(address));
    }
    thread_.Start();
    return OkStatus();
  }

  std::vector<std::string> addresses() const override { return texts_; }

  void StopAccepting() override {
    thread_.StopAccepting();
    std::lock_guard lock(mutex_);
    files_.clear();
  }

  void CancelCalls(const Status& why) override {
    thread_.Run([this, why] {
      open_.ForEach([&](HttpConnection& connection) { connection.CancelCalls(why); });
    });
  }

  void Close(std::chrono::milliseconds patience) override {
    StopAccepting();
    thread_.Run([this] {
      open_.ForEach([](HttpConnection& connection) { connection.CloseAfterFlush(); });
    });
    open_.WaitUntilNone(patience);
    thread_.Run([this] { open_.ForEach([](HttpConnection& connection) { connection.Close(); }); });
  }

  size_t connections() const override { return open_.Count(); }

 private:
  // What the service manager calls so.
  Status Adopt(const std::string& name) {
    const auto inherited = TakeInheritedNamed(name);
    if (inherited.empty()) {
      return FailedPreconditionError("http = fd:" + name +
                                     ", and the service manager handed over no listening socket of "
                                     "this name (FileDescriptorName=" +
                                     name + ")");
    }
    for (const InheritedListener& listener : inherited) {
      const HttpAddress& address = listener.address;
      if (address.unix_path.empty() && !IsLoopback(address.host)) {
        return InvalidArgumentError("the socket fd:" + name + " listens on " +
                                    HttpAddressText(address) +
                                    ", which is no loopback address: whoever can connect over TCP "
                                    "may use the daemon");
      }
      AcceptInherited(listener.descriptor, address);
    }
    return OkStatus();
  }

  void AcceptInherited(int descriptor, const HttpAddress& address) {
    const bool v6 = address.host.find(':') != std::string::npos;
    Accept(descriptor, !address.unix_path.empty() ? AF_UNIX : v6 ? AF_INET6 : AF_INET);
    texts_.push_back(HttpAddressText(address));
  }

  Status BindUnix(const HttpAddress& address) {
    if (const auto inherited = TakeInherited(address)) {
      AcceptInherited(*inherited, address);
      return OkStatus();
    }
    ASSIGN_OR_RETURN(SocketFile file, SocketFile::Listen(address.unix_path, options_.socket_mode));
    Accept(file.ReleaseDescriptor(), AF_UNIX);
    files_.push_back(std::move(file));
    texts_.push_back(HttpAddressText(address));
    return OkStatus();
  }

  Status BindTcp(HttpAddress address) {
    if (const auto inherited = address.port == 0 ? std::nullopt : TakeInherited(address)) {
      AcceptInherited(*inherited, address);
      return OkStatus();
    }
    boost::system::error_code error;
    const auto host = asio::ip::make_address(address.host, error);
    tcp::acceptor acceptor(thread_.io());
    const tcp::endpoint endpoint(host, address.port);
    if (!error) acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) address.port = acceptor.local_endpoint(error).port();
    const int descriptor = error ? -1 : acceptor.release(error);
    if (error) {
      const std::string text = "cannot listen on " + HttpAddressText(address) + ": ";
      if (error != asio::error::address_in_use) return IoError(text + error.message());
      return AlreadyExistsError(text + "another program does; give another --http");
    }
    Accept(descriptor, endpoint.protocol().family());
    texts_.push_back(HttpAddressText(address));
    return OkStatus();
  }

  void Accept(int descriptor, int family) {
    thread_.Accept(descriptor, family, [this, family](int client) { Admit(client, family); });
  }

  void Admit(int descriptor, int family) {
    // Those who are one too many get a word, as long as they are not a flood.
    if (open_.size() >= 2 * options_.connections_max) {
      close(descriptor);
      return;
    }
    const uint64_t id = open_.NewId();
    auto connection = HttpConnection::Make(thread_.io(), descriptor, family, options_.connection,
                                           service_, [this, id] { Forget(id); });
    const size_t before = open_.size();
    open_.Add(id, connection);
    service_.metrics().OnConnected("http");
    if (before >= options_.connections_max) {
      service_.metrics().OnRefusedConnection("http");
      connection->Refuse(UnavailableError(std::to_string(before) +
                                          " clients are connected, which is the limit; try again "
                                          "later or raise http_max_connections"));
    } else {
      connection->Start();
    }
  }

  void Forget(uint64_t id) {
    if (open_.Forget(id)) service_.metrics().OnDisconnected("http");
  }

  const HttpListenerOptions options_;
  HttpService& service_;
  IoThread thread_{"http"};  // outlives what runs on it
  std::mutex mutex_;
  std::vector<SocketFile> files_;  // guarded by mutex_ once the thread runs
  std::vector<std::string> texts_;
  OpenConnections<HttpConnection> open_;
};

}  // namespace

Result<std::unique_ptr<HttpListener>> HttpListener::Open(const HttpListenerOptions& options,
                                                         HttpService& service) {
  auto listener = std::make_unique<Listener>(options, service);
  RETURN_IF_ERROR(listener->Bind());
  return listener;
}

}  // namespace corpusd
