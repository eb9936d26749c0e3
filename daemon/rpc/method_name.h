// daemon/rpc/method_name.h -- what logs, metrics and the audit call a request: "ask",
// "ingest_begin". One of the protocol's words, whatever a client sends. Any thread.
#pragma once

#include <string_view>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {

// The name of the request's field in the protocol; "unknown" if it has none that this daemon knows.
inline std::string_view MethodOf(const v1::Request& request) {
  const auto* const field =
      v1::Request::descriptor()->FindFieldByNumber(static_cast<int>(request.body_case()));
  return field == nullptr ? std::string_view("unknown") : std::string_view(field->name());
}

}  // namespace corpusd
