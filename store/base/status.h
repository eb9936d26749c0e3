// Status: how an operation that may expectedly fail reports it: a code for programs, a sentence for
// people that says what was tried on what. Ok costs one null pointer. Values; any thread.
// Not for bugs: those hit CHECK (check.h). Not an exception: foreign ones stop where they arise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace corpusd {

enum class StatusCode : uint8_t {
#define X(name, number, text, http) name = number,
#include "store/base/status_codes.inc"
#undef X
};

// RETURNS the code's stable lower-case name, such as "not_found".
std::string_view StatusCodeText(StatusCode code);
// RETURNS the HTTP status that stands for the code.
int StatusCodeHttp(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  // REQUIRES: code != kOk.
  Status(StatusCode code, std::string message)
      : detail_(std::make_shared<const Detail>(Detail{code, std::move(message)})) {}

  bool ok() const { return detail_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::kOk : detail_->code; }
  const std::string& message() const;
  // "not_found: corpus 'filings' does not exist"
  std::string ToString() const;
  // The same code with "context: " put before the message; Ok stays Ok.
  Status WithContext(std::string_view context) const;

 private:
  struct Detail {
    StatusCode code;
    std::string message;
  };
  std::shared_ptr<const Detail> detail_;
};

inline Status OkStatus() { return {}; }

// One maker per code that is made often: NotFoundError("corpus '" + name + "' does not exist").
inline Status NotFoundError(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status AlreadyExistsError(std::string m) {
  return {StatusCode::kAlreadyExists, std::move(m)};
}
inline Status InvalidArgumentError(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status FailedPreconditionError(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status ResourceExhaustedError(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status CorruptionError(std::string m) { return {StatusCode::kCorruption, std::move(m)}; }
inline Status IoError(std::string m) { return {StatusCode::kIoError, std::move(m)}; }
inline Status UnavailableError(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status CancelledError(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status UnimplementedError(std::string m) {
  return {StatusCode::kUnimplemented, std::move(m)};
}
inline Status InternalError(std::string m) { return {StatusCode::kInternal, std::move(m)}; }
inline Status NotReadyError(std::string m) { return {StatusCode::kNotReady, std::move(m)}; }

}  // namespace corpusd

#define CORPUSD_STATUS_CONCAT_INNER(a, b) a##b
#define CORPUSD_STATUS_CONCAT(a, b) CORPUSD_STATUS_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                      \
  do {                                                   \
    ::corpusd::Status return_if_error_ = (expression);   \
    if (!return_if_error_.ok()) return return_if_error_; \
  } while (false)
