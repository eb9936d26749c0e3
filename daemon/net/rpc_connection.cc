#include "daemon/net/rpc_connection.h"

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <deque>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "client/wire/frame_codec.h"
#include "daemon/log.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/rpc_session.h"
#include "daemon/rpc/status_mapping.h"

namespace corpusd {
namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr auto kNoThrow = asio::experimental::as_tuple(asio::use_awaitable);

class Connection : public RpcConnection, public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& io, int descriptor, const ConnectionOptions& options,
             std::function<void()> on_closed)
      : io_(io),
        socket_(io, stream_protocol(), descriptor),
        stall_timer_(io),
        drain_timer_(io, asio::steady_timer::time_point::max()),
        options_(options),
        decoder_(options.frame_bytes_max),
        on_closed_(std::move(on_closed)),
        peer_(options.peer_of(descriptor)) {}

  void OpenSession(const Services& services);
  void Start() override;
  void Refuse(const Status& why) override;
  void CancelCalls(const Status& why) override { session_->CancelAll(why); }
  void CloseAfterFlush() override;
  void Close() override;

 private:
  // The session's way back. Outlives the connection: a late answer finds it gone.
  class Sink;

  asio::awaitable<void> ReadLoop();
  asio::awaitable<void> WriteLoop();
  // RETURNS false if the peer broke the protocol; it has been told then.
  bool TakeBytes(std::string_view bytes);
  void Enqueue(std::string frame);
  void Spawn(asio::awaitable<void> loop);

  asio::io_context& io_;
  stream_protocol::socket socket_;
  asio::steady_timer stall_timer_;  // runs while more than unread_bytes_max is queued
  asio::steady_timer drain_timer_;  // never expires: cancelled when the session wants more
  const ConnectionOptions options_;
  FrameDecoder decoder_;
  std::function<void()> on_closed_;
  const Peer peer_;
  std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<RpcSession> session_;
  std::deque<std::string> frames_;
  size_t queued_bytes_ = 0;
  bool writing_ = false;
  bool stalled_ = false;
  bool close_after_flush_ = false;
};

class Connection::Sink : public ResponseSink {
 public:
  explicit Sink(const std::shared_ptr<Connection>& connection)
      : io_(connection->io_),
        connection_(connection),
        closed_(connection->closed_),
        frame_bytes_max_(connection->options_.frame_bytes_max) {}

  bool Send(const v1::Response& response) override {
    if (*closed_) return false;
    std::string frame;
    if (!AppendFrame(response, frame_bytes_max_, &frame)) {
      const v1::Response refusal = ErrorResponse(
          response.id(),
          ResourceExhaustedError("the answer has " + std::to_string(response.ByteSizeLong()) +
                                 " bytes, the limit of a frame is " +
                                 std::to_string(frame_bytes_max_)));
      (void)AppendFrame(refusal, frame_bytes_max_, &frame);
    }
    asio::post(io_, [weak = connection_, frame = std::move(frame)]() mutable {
      if (const auto connection = weak.lock()) connection->Enqueue(std::move(frame));
    });
    return true;
  }

 private:
  asio::io_context& io_;
  const std::weak_ptr<Connection> connection_;
  const std::shared_ptr<std::atomic<bool>> closed_;
  const size_t frame_bytes_max_;
};

void Connection::OpenSession(const Services& services) {
  auto on_drained = [weak = weak_from_this(), &io = io_] {
    asio::post(io, [weak] {
      if (const auto connection = weak.lock()) connection->drain_timer_.cancel();
    });
  };
  session_ = std::make_shared<RpcSession>(
      services, peer_, std::make_shared<Sink>(shared_from_this()), std::move(on_drained));
}

void Connection::Spawn(asio::awaitable<void> loop) {
  asio::co_spawn(io_, std::move(loop), [self = shared_from_this()](std::exception_ptr failure) {
    if (failure == nullptr) return;
    try {  // the root of the coroutine: out of memory, or a bug of a library
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "connection_failed",
          {{"peer", PeerText(self->peer_)}, {"error", error.what()}});
    }
    self->Close();
  });
}

void Connection::Start() {
  Log(LogLevel::kDebug, "connection_opened", {{"peer", PeerText(peer_)}});
  Spawn(ReadLoop());
}

asio::awaitable<void> Connection::ReadLoop() {
  const auto self = shared_from_this();
  std::vector<char> buffer(kReadBytes);
  while (!*closed_ && !close_after_flush_) {
    if (!session_->WantsMore()) {
      co_await drain_timer_.async_wait(kNoThrow);
      continue;
    }
    const auto [error, got] = co_await socket_.async_read_some(asio::buffer(buffer), kNoThrow);
    if (error) {
      if (!close_after_flush_) Close();
      co_return;
    }
    if (!TakeBytes({buffer.data(), got})) co_return;
  }
}

bool Connection::TakeBytes(std::string_view bytes) {
  for (;;) {
    switch (decoder_.Take(&bytes)) {
      case FrameDecoder::Outcome::kNeedMore:
        return true;
      case FrameDecoder::Outcome::kTooLarge:
        Refuse(InvalidArgumentError("a frame of " + std::to_string(decoder_.refused_bytes()) +
                                    " bytes was announced, the limit is " +
                                    std::to_string(options_.frame_bytes_max) +
                                    "; the connection is closed"));
        return false;
      case FrameDecoder::Outcome::kFrame:
        break;
    }
    v1::Request request;
    if (!request.ParseFromString(decoder_.frame())) {
      Refuse(
          InvalidArgumentError("a frame is no corpusd.v1.Request, or a text in it is not UTF-8; "
                               "the connection is closed"));
      return false;
    }
    session_->OnRequest(std::move(request));
  }
}

void Connection::Enqueue(std::string frame) {
  if (*closed_) return;
  queued_bytes_ += frame.size();
  frames_.push_back(std::move(frame));
  if (queued_bytes_ > options_.queued_bytes_max) {
    Log(LogLevel::kWarn, "client_too_slow",
        {{"peer", PeerText(peer_)}, {"queued_bytes", queued_bytes_}});
    return Close();
  }
  if (queued_bytes_ > options_.unread_bytes_max && !std::exchange(stalled_, true)) {
    stall_timer_.expires_after(options_.write_stall);
    stall_timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (error || self == nullptr || !self->stalled_) return;
      Log(LogLevel::kWarn, "client_too_slow",
          {{"peer", PeerText(self->peer_)}, {"queued_bytes", self->queued_bytes_}});
      self->Close();
    });
  }
  if (!std::exchange(writing_, true)) Spawn(WriteLoop());
}

asio::awaitable<void> Connection::WriteLoop() {
  const auto self = shared_from_this();
  while (!frames_.empty() && !*closed_) {
    // The frame stays in the queue while it is written: a deque keeps its place when others join.
    const auto [error, wrote] =
        co_await asio::async_write(socket_, asio::buffer(frames_.front()), kNoThrow);
    if (error) {
      Close();
      co_return;
    }
    queued_bytes_ -= wrote;
    frames_.pop_front();
    if (stalled_ && queued_bytes_ <= options_.unread_bytes_max) {
      stalled_ = false;
      stall_timer_.cancel();
    }
  }
  writing_ = false;
  if (close_after_flush_) Close();
}

void Connection::Refuse(const Status& why) {
  Log(LogLevel::kWarn, "connection_refused", {{"peer", PeerText(peer_)}, {"error", why.message()}});
  if (session_ != nullptr) session_->OnClosed();
  std::string frame;
  (void)AppendFrame(ErrorResponse(0, why), options_.frame_bytes_max, &frame);
  Enqueue(std::move(frame));
  CloseAfterFlush();
}

void Connection::CloseAfterFlush() {
  close_after_flush_ = true;
  if (!writing_) return Close();
}

void Connection::Close() {
  if (closed_->exchange(true)) return;
  Log(LogLevel::kDebug, "connection_closed", {{"peer", PeerText(peer_)}});
  boost::system::error_code ignored;
  socket_.shutdown(stream_protocol::socket::shutdown_both, ignored);
  socket_.close(ignored);
  stall_timer_.cancel();
  drain_timer_.cancel();
  if (session_ != nullptr) session_->OnClosed();
  if (on_closed_) std::exchange(on_closed_, nullptr)();
}

}  // namespace

std::shared_ptr<RpcConnection> RpcConnection::Make(asio::io_context& io, int descriptor,
                                                   const ConnectionOptions& options,
                                                   const Services& services,
                                                   std::function<void()> on_closed) {
  auto connection = std::make_shared<Connection>(io, descriptor, options, std::move(on_closed));
  connection->OpenSession(services);
  return connection;
}

}  // namespace corpusd
