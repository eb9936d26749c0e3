#include "daemon/net/http_exchange.h"

#include <utility>

namespace corpusd {

QueuedExchange::QueuedExchange(HttpRequest request, std::function<void(std::function<void()>)> post,
                               std::function<void()> on_part)
    : HttpExchange(std::move(request)), post_(std::move(post)), on_part_(std::move(on_part)) {}

void QueuedExchange::Post(Part part) {
  if (closed_) return;
  // A function that is copied must not copy the part.
  auto moved = std::make_shared<Part>(std::move(part));
  post_([self = shared_from_this(), moved] {
    if (self->closed_) return;
    self->queued_bytes_ += moved->piece.size();
    self->parts_.push_back(std::move(*moved));
    self->on_part_();
  });
}

void QueuedExchange::Send(HttpResponse response) {
  if (answered_.exchange(true)) return;
  Post({Part::Kind::kWhole, std::move(response), ""});
}

void QueuedExchange::BeginStream(HttpResponse head) {
  if (answered_.exchange(true)) return;
  Post({Part::Kind::kHead, std::move(head), ""});
}

bool QueuedExchange::SendPiece(std::string piece) {
  Post({Part::Kind::kPiece, {}, std::move(piece)});
  return !closed_;
}

void QueuedExchange::EndStream() { Post({Part::Kind::kEnd, {}, ""}); }

void QueuedExchange::OnStop(std::function<void(const Status& why)> function) {
  Status why;
  {
    std::lock_guard lock(mutex_);
    why = stopped_;
    if (why.ok()) on_stop_ = std::move(function);
  }
  if (!why.ok()) function(why);
}

QueuedExchange::Part QueuedExchange::Take() {
  Part part = std::move(parts_.front());
  parts_.pop_front();
  queued_bytes_ -= part.piece.size();
  return part;
}

void QueuedExchange::Close() {
  closed_ = true;
  parts_.clear();
  queued_bytes_ = 0;
  Stop(CancelledError("the client has gone"));
}

void QueuedExchange::Stop(const Status& why) {
  std::function<void(const Status&)> function;
  {
    std::lock_guard lock(mutex_);
    if (!stopped_.ok()) return;
    stopped_ = why;
    function = std::exchange(on_stop_, nullptr);
  }
  if (function) function(why);
}

}  // namespace corpusd
