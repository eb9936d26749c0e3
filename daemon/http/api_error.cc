#include "daemon/http/api_error.h"

#include <utility>

#include "daemon/http/json_text.h"

namespace corpusd {
namespace {

constexpr const char* kRetryAfterSeconds = "1";

}  // namespace

std::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 409:
    case 412:
      return "conflict_error";
    case 429:
      return "rate_limit_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    case 504:
      return "timeout_error";
    case 507:
      return "insufficient_storage_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

ApiError ToApiError(const Status& status, std::string_view param) {
  const int http = StatusCodeHttp(status.code());
  return {http, status.message(), std::string(ErrorType(http)),
          std::string(StatusCodeText(status.code())), std::string(param)};
}

ApiError BadRequest(std::string message, std::string_view param) {
  return ToApiError(InvalidArgumentError(std::move(message)), param);
}

std::string ErrorJson(const ApiError& error) {
  OrderedJson body;
  body["error"] = {
      {"message", error.message},
      {"type", error.type},
      {"code", error.code},
      {"param", error.param.empty() ? OrderedJson(nullptr) : OrderedJson(error.param)}};
  return JsonText(body);
}

HttpResponse ErrorReply(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = ErrorJson(error);
  if (error.status == 503 || error.status == 429) {
    response.headers.push_back({"Retry-After", kRetryAfterSeconds});
  }
  return response;
}

HttpResponse ErrorReply(const Status& status) { return ErrorReply(ToApiError(status)); }

}  // namespace corpusd
