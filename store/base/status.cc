#include "store/base/status.h"

#include "store/base/check.h"

namespace corpusd {

std::string_view StatusCodeText(StatusCode code) {
  switch (code) {
#define X(name, number, text, http) \
  case StatusCode::name:            \
    return text;
#include "store/base/status_codes.inc"
#undef X
  }
  return "unknown";
}

int StatusCodeHttp(StatusCode code) {
  switch (code) {
#define X(name, number, text, http) \
  case StatusCode::name:            \
    return http;
#include "store/base/status_codes.inc"
#undef X
  }
  return 500;
}

const std::string& Status::message() const {
  static const std::string kEmpty;
  return ok() ? kEmpty : detail_->message;
}

std::string Status::ToString() const {
  if (ok()) return "ok";
  return std::string(StatusCodeText(code())) + ": " + message();
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) return {};
  return {code(), std::string(context) + ": " + message()};
}

}  // namespace corpusd
