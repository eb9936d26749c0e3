// daemon/http/idempotency_keys.h -- IdempotencyKeys: what was answered to requests that may be sent
// twice, by their Idempotency-Key, so that the second one changes nothing. Remembers the last
// thousand for a day, in memory: a restart forgets them. Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "daemon/http/http_message.h"

namespace corpusd {

class IdempotencyKeys {
 public:
  static constexpr size_t kKeysMax = 1000;
  static constexpr int64_t kKeptMs = int64_t{24} * 3600 * 1000;
  static constexpr size_t kKeyBytesMax = 255;

  // Begins a request. RETURNS the response to give at once: the one that was given before, or 409
  // while the first is under way, or 422 if it was another request; none: go on, then End.
  // fingerprint: of what was asked.
  std::optional<HttpResponse> Begin(const std::string& key, const std::string& fingerprint,
                                    int64_t now_ms);
  // Remembers the response; one that may be tried again (5xx, 429, and 499 of a client that went)
  // is forgotten with its key.
  void End(const std::string& key, const HttpResponse& response);

 private:
  struct Entry {
    std::string fingerprint;
    int64_t begun_ms = 0;
    std::optional<HttpResponse> response;  // none: under way
  };

  void Prune(int64_t now_ms);

  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  std::list<std::string> order_;  // the oldest first
};

}  // namespace corpusd
