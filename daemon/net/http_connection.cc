#include "daemon/net/http_connection.h"

#include <sys/socket.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "daemon/http/api_error.h"
#include "daemon/log.h"
#include "daemon/net/http_exchange.h"
#include "daemon/rpc/peer.h"

namespace corpusd {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Socket = asio::generic::stream_protocol::socket;
using Parser = http::request_parser<http::string_body>;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kNoThrow = asio::experimental::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = size_t{64} << 10;
// Pieces of a stream that wait are written together, up to so much.
constexpr size_t kWriteBytes = size_t{256} << 10;
// After a refusal so much of what still comes is dropped, so that a sending client reads it.
constexpr milliseconds kLingerTime{1000};
constexpr size_t kLingerBytes = size_t{4} << 20;

ApiError ReadError(const boost::system::error_code& error, size_t header_bytes_max) {
  ApiError api = BadRequest("the request is no HTTP/1.1: " + error.message());
  if (error == http::error::header_limit) {
    api.status = 431;
    api.code = "headers_too_large";
    api.message = "a request's head has at most " + std::to_string(header_bytes_max) + " bytes";
  } else if (error == http::error::body_limit) {
    api.status = 413;
    api.code = "body_too_large";
    api.message = "the body of the request is too long";
  }
  return api;
}

class Connection : public HttpConnection, public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& io, int descriptor, int family, const HttpConnectionOptions& options,
             HttpService& service, std::function<void()> on_closed)
      : io_(io),
        socket_(io, asio::generic::stream_protocol(family, 0), descriptor),
        deadline_(io),
        wake_(io, asio::steady_timer::time_point::max()),
        options_(options),
        service_(service),
        on_closed_(std::move(on_closed)),
        buffer_(options.header_bytes_max + kReadBytes) {
    identity_.tcp = family != AF_UNIX;
    if (!identity_.tcp) identity_.peer = options_.peer_of(descriptor);
  }

  void Start() override;
  void Refuse(const Status& why) override;
  void CancelCalls(const Status& why) override {
    if (exchange_ != nullptr) exchange_->Stop(why);
  }
  void CloseAfterFlush() override;
  void Close() override;

 private:
  // What of a request decides how its response is written.
  struct Head {
    unsigned version = 11;
    bool keep_alive = true;
    bool head_only = false;
    std::string line;  // for logs: "GET /v1/models"
    steady_clock::time_point came_at = steady_clock::now();
  };

  asio::awaitable<void> Serve();
  asio::awaitable<void> ServeRefusal(ApiError error);
  // RETURNS null if the connection ends here; the client has been told then, if it still listens.
  asio::awaitable<std::shared_ptr<QueuedExchange>> ReadRequest(Head* head);
  asio::awaitable<bool> ReadHead(Parser& parser, Head* head, HttpRequest* request);
  asio::awaitable<bool> ReadBody(Parser& parser, const Head& head, const HttpRequest& request);
  Status TakeHead(const Parser& parser, Head* head, HttpRequest* request) const;
  // RETURNS whether another request may follow.
  asio::awaitable<bool> Respond(const std::shared_ptr<QueuedExchange>& exchange, Head head);
  asio::awaitable<bool> WriteWhole(const HttpResponse& response, const Head& head, bool keep_alive);
  asio::awaitable<bool> WriteStream(QueuedExchange& exchange, const HttpResponse& response,
                                    const Head& head);
  asio::awaitable<bool> WritePiece(const std::string& piece, bool chunked);
  // The next part; none: nothing came in this time, or the connection is closed.
  asio::awaitable<std::optional<QueuedExchange::Part>> NextPart(QueuedExchange& exchange,
                                                                milliseconds patience);
  asio::awaitable<void> Linger();
  void WatchPeer();
  // What waits on the socket ends after this time; timed_out_ tells.
  void Arm(milliseconds time);
  void Disarm();
  void OnPart();
  void Spawn(asio::awaitable<void> loop);

  asio::io_context& io_;
  Socket socket_;
  asio::steady_timer deadline_;
  asio::steady_timer wake_;  // cancelled when a part has come
  const HttpConnectionOptions options_;
  HttpService& service_;
  std::function<void()> on_closed_;
  Identity identity_;
  boost::beast::flat_buffer buffer_;
  std::shared_ptr<QueuedExchange> exchange_;  // under way
  uint64_t deadline_id_ = 0;
  size_t written_bytes_ = 0;  // of the body of the response under way
  bool timed_out_ = false;
  bool busy_ = false;  // between the first byte of a request and the last of its response
  bool watching_ = false;
  bool close_after_flush_ = false;
  bool closed_ = false;
};

void Connection::Spawn(asio::awaitable<void> loop) {
  asio::co_spawn(io_, std::move(loop), [self = shared_from_this()](std::exception_ptr failure) {
    try {  // the root of the coroutine: out of memory, or a bug of a library
      if (failure != nullptr) std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "http_connection_failed", {{"error", error.what()}});
    }
    self->Close();
  });
}

void Connection::Start() { Spawn(Serve()); }

void Connection::Refuse(const Status& why) {
  Log(LogLevel::kWarn, "http_refused",
      {{"peer", IdentityText(identity_)}, {"error", why.message()}});
  Spawn(ServeRefusal(ToApiError(why)));
}

asio::awaitable<void> Connection::ServeRefusal(ApiError error) {
  const auto self = shared_from_this();
  Head head;
  head.keep_alive = false;
  (void)co_await WriteWhole(ErrorReply(error), head, false);
  co_await Linger();
}

asio::awaitable<void> Connection::Serve() {
  const auto self = shared_from_this();
  while (!closed_ && !close_after_flush_) {
    Head head;
    auto exchange = co_await ReadRequest(&head);
    if (exchange == nullptr) break;
    exchange_ = exchange;
    const bool next = co_await Respond(exchange, head);
    exchange->Close();
    exchange_ = nullptr;
    busy_ = false;
    if (!next) break;
  }
  if (!closed_) co_await Linger();
}

asio::awaitable<std::shared_ptr<QueuedExchange>> Connection::ReadRequest(Head* head) {
  if (buffer_.size() == 0) {
    Arm(options_.idle_timeout);
    const auto [error, got] =
        co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kNoThrow);
    Disarm();
    if (error) co_return nullptr;
    buffer_.commit(got);
  }
  busy_ = true;
  head->came_at = steady_clock::now();
  Parser parser;
  HttpRequest request;
  if (!co_await ReadHead(parser, head, &request)) co_return nullptr;
  if (!co_await ReadBody(parser, *head, request)) co_return nullptr;
  request.body = std::move(parser.get().body());
  auto post = [&io = io_](std::function<void()> function) { asio::post(io, std::move(function)); };
  auto on_part = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnPart();
  };
  co_return std::make_shared<QueuedExchange>(std::move(request), std::move(post),
                                             std::move(on_part));
}

Status Connection::TakeHead(const Parser& parser, Head* head, HttpRequest* request) const {
  const auto& message = parser.get();
  head->version = message.version();
  head->keep_alive = message.keep_alive();
  head->head_only = message.method() == http::verb::head;
  request->method = head->head_only ? "GET" : std::string(message.method_string());
  request->identity = identity_;
  for (const auto& field : message) {
    request->headers.push_back({std::string(field.name_string()), std::string(field.value())});
  }
  request->id = ClientsId(*request);
  if (request->id.empty()) request->id = RandomId();
  if (const std::string* const shown = request->Header("Authorization"); shown != nullptr) {
    request->identity.token = BearerToken(*shown);
  }
  RETURN_IF_ERROR(ParseTarget(std::string_view(message.target()), request));
  head->line = request->method;
  for (const std::string& segment : request->segments) {
    head->line += (head->line == request->method ? " /" : "/") + segment;
  }
  if (head->version != 10 && head->version != 11) {
    return InvalidArgumentError("only HTTP/1.1 and 1.0 are spoken here");
  }
  RETURN_IF_ERROR(CheckFraming(static_cast<int>(head->version), request->headers));
  return identity_.tcp ? CheckOrigin(request->headers) : OkStatus();
}

asio::awaitable<bool> Connection::ReadHead(Parser& parser, Head* head, HttpRequest* request) {
  parser.header_limit(static_cast<std::uint32_t>(options_.header_bytes_max));
  parser.body_limit(boost::none);  // known when the route is
  Arm(options_.header_timeout);
  const auto [error, got] = co_await http::async_read_header(socket_, buffer_, parser, kNoThrow);
  Disarm();
  std::optional<ApiError> refusal;
  if (timed_out_) {
    refusal = BadRequest("the head of the request took longer than " +
                         std::to_string(options_.header_timeout.count()) + " ms");
    refusal->status = 408;
    refusal->code = "request_timeout";
  } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
             error != http::error::end_of_stream && error != http::error::partial_message) {
    refusal = ReadError(error, options_.header_bytes_max);
  } else if (error) {
    co_return false;
  }
  if (!refusal) {
    const Status taken = TakeHead(parser, head, request);
    if (!taken.ok()) refusal = ToApiError(taken);
  }
  if (!refusal) co_return true;
  Log(LogLevel::kInfo, "http_bad_request",
      {{"peer", IdentityText(identity_)}, {"error", refusal->message}});
  co_await ServeRefusal(*refusal);
  co_return false;
}

asio::awaitable<bool> Connection::ReadBody(Parser& parser, const Head& head,
                                           const HttpRequest& request) {
  const size_t bytes_max = service_.BodyBytesMax(request);
  const auto announced = parser.content_length();
  boost::system::error_code error;
  if (announced && *announced > bytes_max) error = http::error::body_limit;
  parser.body_limit(bytes_max);
  timed_out_ = false;
  if (!error && !parser.is_done()) {
    const std::string* const expect = request.Header("Expect");
    Arm(options_.body_timeout);
    if (head.version >= 11 && expect != nullptr && EqualsIgnoringCase(*expect, "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      (void)co_await asio::async_write(socket_, asio::buffer(kContinue), kNoThrow);
    }
    const auto [read_error, got] = co_await http::async_read(socket_, buffer_, parser, kNoThrow);
    Disarm();
    error = read_error;
  }
  if (!error) co_return true;
  ApiError refusal = ReadError(error, options_.header_bytes_max);
  if (timed_out_) {
    refusal.status = 408;
    refusal.code = "request_timeout";
    refusal.message = "the body of the request took longer than " +
                      std::to_string(options_.body_timeout.count()) + " ms";
  } else if (refusal.status == 413) {
    refusal.message += ": at most " + std::to_string(bytes_max) + " bytes are taken here";
  }
  Log(LogLevel::kInfo, "http_bad_request",
      {{"peer", IdentityText(identity_)}, {"request", head.line}, {"error", refusal.message}});
  co_await ServeRefusal(refusal);
  co_return false;
}

asio::awaitable<bool> Connection::Respond(const std::shared_ptr<QueuedExchange>& exchange,
                                          Head head) {
  written_bytes_ = 0;
  WatchPeer();
  service_.Handle(exchange);
  std::optional<QueuedExchange::Part> first;
  while (!first && !closed_) {
    first = co_await NextPart(*exchange, options_.idle_timeout);
  }
  if (closed_) co_return false;
  const bool keep_alive = head.keep_alive && !close_after_flush_;
  first->response.headers.push_back({"X-Request-Id", exchange->request().id});
  bool more = false;
  if (first->kind == QueuedExchange::Part::Kind::kHead) {
    more = co_await WriteStream(*exchange, first->response, head);
  } else {
    more = co_await WriteWhole(first->response, head, keep_alive);
  }
  const std::chrono::duration<double, std::milli> spent = steady_clock::now() - head.came_at;
  Log(first->response.status >= 500 ? LogLevel::kWarn : LogLevel::kInfo, "http",
      {{"request", exchange->request().id},
       {"line", head.line},
       {"status", first->response.status},
       {"bytes", written_bytes_},
       {"ms", spent.count()},
       {"peer", IdentityText(identity_)}});
  co_return more && !close_after_flush_;
}

template <typename Message>
void FillHead(const HttpResponse& response, bool keep_alive, Message* message) {
  message->set(http::field::content_type, response.content_type);
  message->set(http::field::cache_control, "no-store");
  message->set("X-Content-Type-Options", "nosniff");
  for (const HttpHeader& header : response.headers) message->set(header.name, header.value);
  message->keep_alive(keep_alive);
}

asio::awaitable<bool> Connection::WriteWhole(const HttpResponse& response, const Head& head,
                                             bool keep_alive) {
  http::response<http::span_body<const char>> message;
  message.result(static_cast<unsigned>(response.status));
  message.version(head.version == 10 ? 10 : 11);
  FillHead(response, keep_alive, &message);
  if (BodyAllowed(response.status)) message.content_length(response.body.size());
  if (!head.head_only) message.body() = {response.body.data(), response.body.size()};
  http::response_serializer<http::span_body<const char>> serializer(message);
  Arm(options_.write_timeout);
  boost::system::error_code error;
  if (head.head_only) {
    const auto [failed, wrote] = co_await http::async_write_header(socket_, serializer, kNoThrow);
    error = failed;
  } else {
    const auto [failed, wrote] = co_await http::async_write(socket_, serializer, kNoThrow);
    error = failed;
  }
  Disarm();
  written_bytes_ += response.body.size();
  co_return !error && keep_alive;
}

asio::awaitable<bool> Connection::WritePiece(const std::string& piece, bool chunked) {
  Arm(options_.write_timeout);
  boost::system::error_code error;
  if (chunked) {
    const auto [failed, wrote] =
        co_await asio::async_write(socket_, http::make_chunk(asio::buffer(piece)), kNoThrow);
    error = failed;
  } else {
    const auto [failed, wrote] = co_await asio::async_write(socket_, asio::buffer(piece), kNoThrow);
    error = failed;
  }
  Disarm();
  written_bytes_ += piece.size();
  co_return !error;
}

asio::awaitable<bool> Connection::WriteStream(QueuedExchange& exchange,
                                              const HttpResponse& response, const Head& head) {
  const bool chunked = head.version >= 11;
  const bool keep_alive = chunked && head.keep_alive && !close_after_flush_;
  http::response<http::empty_body> message;
  message.result(static_cast<unsigned>(response.status));
  message.version(chunked ? 11 : 10);
  FillHead(response, keep_alive, &message);
  message.set("X-Accel-Buffering", "no");  // proxies must not hold events back
  message.chunked(chunked);
  http::response_serializer<http::empty_body> serializer(message);
  Arm(options_.write_timeout);
  const auto [error, wrote] = co_await http::async_write_header(socket_, serializer, kNoThrow);
  Disarm();
  if (error || head.head_only) co_return false;
  for (;;) {
    auto part = co_await NextPart(exchange, options_.ping_interval);
    if (closed_) co_return false;
    if (part && part->kind == QueuedExchange::Part::Kind::kEnd) break;
    std::string piece = part ? std::move(part->piece) : ": ping\n\n";
    bool end = false;
    while (!exchange.empty() && !end && piece.size() < kWriteBytes) {
      const QueuedExchange::Part next = exchange.Take();
      end = next.kind == QueuedExchange::Part::Kind::kEnd;
      piece += next.piece;
    }
    if (!co_await WritePiece(piece, chunked)) co_return false;
    if (end) break;
  }
  if (!chunked) co_return false;
  Arm(options_.write_timeout);
  const auto [failed, last] =
      co_await asio::async_write(socket_, http::make_chunk_last(), kNoThrow);
  Disarm();
  co_return !failed && keep_alive;
}

asio::awaitable<std::optional<QueuedExchange::Part>> Connection::NextPart(QueuedExchange& exchange,
                                                                          milliseconds patience) {
  if (exchange.empty() && !closed_) {
    wake_.expires_after(patience);
    co_await wake_.async_wait(kNoThrow);
  }
  if (exchange.empty() || closed_) co_return std::nullopt;
  co_return exchange.Take();
}

void Connection::OnPart() {
  if (exchange_ != nullptr && exchange_->queued_bytes() > options_.queued_bytes_max) {
    Log(LogLevel::kWarn, "client_too_slow",
        {{"peer", IdentityText(identity_)}, {"queued_bytes", exchange_->queued_bytes()}});
    return Close();
  }
  wake_.cancel();
}

// A client that closes its side while its answer is made wants it no more. One that sends its next
// request meanwhile is not watched further: the write of the response will tell.
void Connection::WatchPeer() {
  if (std::exchange(watching_, true)) return;
  socket_.async_wait(
      Socket::wait_read, [weak = weak_from_this()](const boost::system::error_code& error) {
        const auto self = weak.lock();
        if (self == nullptr || self->closed_) return;
        self->watching_ = false;
        if (error || self->exchange_ == nullptr) return;
        char byte = 0;
        const ssize_t got = recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (got > 0) return;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return self->WatchPeer();
        self->Close();
      });
}

asio::awaitable<void> Connection::Linger() {
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  Arm(kLingerTime);
  size_t dropped = 0;
  buffer_.clear();
  while (!closed_ && dropped < kLingerBytes) {
    const auto [error, got] =
        co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kNoThrow);
    if (error) break;
    dropped += got;
  }
  Disarm();
}

void Connection::Arm(milliseconds time) {
  timed_out_ = false;
  const uint64_t id = ++deadline_id_;
  deadline_.expires_after(time);
  deadline_.async_wait([weak = weak_from_this(), id](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr || self->closed_ || id != self->deadline_id_) return;
    self->timed_out_ = true;
    self->watching_ = false;
    boost::system::error_code ignored;
    self->socket_.cancel(ignored);
  });
}

void Connection::Disarm() {
  ++deadline_id_;
  deadline_.cancel();
}

void Connection::CloseAfterFlush() {
  close_after_flush_ = true;
  if (!busy_) Close();
}

void Connection::Close() {
  if (std::exchange(closed_, true)) return;
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
  socket_.close(ignored);
  deadline_.cancel();
  wake_.cancel();
  if (exchange_ != nullptr) exchange_->Close();
  if (on_closed_) std::exchange(on_closed_, nullptr)();
}

}  // namespace

std::shared_ptr<HttpConnection> HttpConnection::Make(asio::io_context& io, int descriptor,
                                                     int family,
                                                     const HttpConnectionOptions& options,
                                                     HttpService& service,
                                                     std::function<void()> on_closed) {
  return std::make_shared<Connection>(io, descriptor, family, options, service,
                                      std::move(on_closed));
}

}  // namespace corpusd
