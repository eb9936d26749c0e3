#include "daemon/http/idempotency_keys.h"

#include "daemon/http/api_error.h"

namespace corpusd {

void IdempotencyKeys::Prune(int64_t now_ms) {
  while (!order_.empty()) {
    const auto oldest = entries_.find(order_.front());
    const bool over = order_.size() > kKeysMax || oldest->second.begun_ms + kKeptMs < now_ms;
    if (!over) return;
    entries_.erase(oldest);
    order_.pop_front();
  }
}

std::optional<HttpResponse> IdempotencyKeys::Begin(const std::string& key,
                                                   const std::string& fingerprint, int64_t now_ms) {
  std::lock_guard lock(mutex_);
  Prune(now_ms);
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) {
    entries_[key] = {fingerprint, now_ms, std::nullopt};
    order_.push_back(key);
    return std::nullopt;
  }
  ApiError error;
  if (entry->second.fingerprint != fingerprint) {
    error = BadRequest("this Idempotency-Key came with another request before");
    error.status = 422;
    error.code = "idempotency_key_reused";
    return ErrorReply(error);
  }
  if (!entry->second.response) {
    error = ToApiError(
        {StatusCode::kAborted, "a request with this Idempotency-Key is under way; wait for it"});
    error.code = "idempotency_key_in_use";
    return ErrorReply(error);
  }
  HttpResponse again = *entry->second.response;
  again.headers.push_back({"Idempotent-Replayed", "true"});
  return again;
}

void IdempotencyKeys::End(const std::string& key, const HttpResponse& response) {
  std::lock_guard lock(mutex_);
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;  // pushed out meanwhile
  const bool final = response.status < 499 && response.status != 429;
  if (final) {
    entry->second.response = response;
    return;
  }
  entries_.erase(entry);
  order_.remove(key);
}

}  // namespace corpusd
