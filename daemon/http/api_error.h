// daemon/http/api_error.h -- errors as clients of the OpenAI dialect read them:
//   {"error": {"message": ..., "type": ..., "code": ..., "param": ...}}
// The only place where a Status becomes one. Values; any thread.
#pragma once

#include <string>
#include <string_view>

#include "daemon/http/http_message.h"
#include "store/base/status.h"

namespace corpusd {

struct ApiError {
  int status = 500;     // HTTP
  std::string message;  // one sentence
  std::string type;     // "invalid_request_error", ...
  std::string code;     // "not_found", ...: for programs
  std::string param;    // the field of the request that is to blame; "": none
};

// REQUIRES: !status.ok().
ApiError ToApiError(const Status& status, std::string_view param = "");
// A request that cannot be read, or a field of it. 400.
ApiError BadRequest(std::string message, std::string_view param = "");
// The type that goes with an HTTP status.
std::string_view ErrorType(int status);

// {"error": ...}, of one line.
std::string ErrorJson(const ApiError& error);
// With Retry-After where trying again may help.
HttpResponse ErrorReply(const ApiError& error);
HttpResponse ErrorReply(const Status& status);

}  // namespace corpusd
