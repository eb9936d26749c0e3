#include "daemon/net/unix_listener.h"

#include <sys/socket.h>

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

class Listener : public UnixListener {
 public:
  Listener(const ListenerOptions& options, const Services& services, SocketFile file)
      : options_(options), services_(services), file_(std::move(file)) {
    thread_.Accept(file_->ReleaseDescriptor(), AF_UNIX, [this](int client) { Admit(client); });
    thread_.Start();
  }

  ~Listener() override {
    Close(std::chrono::milliseconds::zero());
    thread_.Stop();
  }

  void StopAccepting() override {
    thread_.StopAccepting();
    std::lock_guard lock(mutex_);
    file_.reset();
  }

  void CancelCalls(const Status& why) override {
    thread_.Run([this, why] {
      open_.ForEach([&](RpcConnection& connection) { connection.CancelCalls(why); });
    });
  }

  void Close(std::chrono::milliseconds patience) override {
    StopAccepting();
    thread_.Run(
        [this] { open_.ForEach([](RpcConnection& connection) { connection.CloseAfterFlush(); }); });
    open_.WaitUntilNone(patience);
    thread_.Run([this] { open_.ForEach([](RpcConnection& connection) { connection.Close(); }); });
  }

  size_t connections() const override { return open_.Count(); }

 private:
  void Admit(int descriptor) {
    const uint64_t id = open_.NewId();
    auto connection = RpcConnection::Make(thread_.io(), descriptor, options_.connection, services_,
                                          [this, id] { Forget(id); });
    const size_t before = open_.size();
    open_.Add(id, connection);
    services_.metrics.OnConnected("rpc");
    if (before >= options_.connections_max) {
      services_.metrics.OnRefusedConnection("rpc");
      connection->Refuse(UnavailableError(std::to_string(before) +
                                          " clients are connected, which is the limit; try again "
                                          "later or raise max_connections"));
    } else {
      connection->Start();
    }
  }

  void Forget(uint64_t id) {
    if (open_.Forget(id)) services_.metrics.OnDisconnected("rpc");
  }

  const ListenerOptions options_;
  const Services& services_;
  IoThread thread_{"io"};  // outlives what runs on it
  std::mutex mutex_;
  std::optional<SocketFile> file_;  // guarded by mutex_ after the constructor
  OpenConnections<RpcConnection> open_;
};

}  // namespace

Result<std::unique_ptr<UnixListener>> UnixListener::Open(const ListenerOptions& options,
                                                         const Services& services) {
  if (const auto inherited = TakeInherited({.unix_path = options.socket_path})) {
    return std::make_unique<Listener>(options, services, SocketFile::Adopt(*inherited));
  }
  ASSIGN_OR_RETURN(SocketFile file, SocketFile::Listen(options.socket_path, options.socket_mode));
  return std::make_unique<Listener>(options, services, std::move(file));
}

}  // namespace corpusd
