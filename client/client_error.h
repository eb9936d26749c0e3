// client/client_error.h -- what a call of the client library gives back: a value, or a ClientError
// that says why there is none. The client stands alone, so this is not the daemon's Status; code
// and code_text are those of the wire for errors the daemon reports, and the four kClient... codes
// for what happens on this side. Values; any thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace corpusd {

struct ClientError {
  uint32_t code = 0;      // StatusCode of the wire, or one of the codes below
  std::string code_text;  // "not_found", "unreachable", ...: stable, for programs
  std::string message;    // one sentence for people
};

// Codes of the wire that the client makes itself too.
inline constexpr uint32_t kClientInvalidArgument = 3;  // "invalid_argument"
inline constexpr uint32_t kClientCancelled = 11;       // "cancelled": by a callback of the caller
inline constexpr uint32_t kClientDeadlineExceeded =
    12;  // "deadline_exceeded": the call's timeout passed
// Codes that only the client makes.
inline constexpr uint32_t kClientUnreachable =
    1000;  // "unreachable": no daemon, or the connection broke
inline constexpr uint32_t kClientInterrupted =
    1001;  // "interrupted": ClientOptions::interrupted was set
inline constexpr uint32_t kClientProtocol = 1002;  // "protocol": the peer sent what no daemon sends

template <typename T>
class [[nodiscard]] ClientResult {
 public:
  ClientResult(T value) : value_(std::move(value)) {}  // NOLINT: implicit, so `return value;` works
  ClientResult(ClientError error) : error_(std::move(error)) {}  // NOLINT: implicit, as above

  bool ok() const { return value_.has_value(); }
  // REQUIRES: !ok().
  const ClientError& error() const { return error_; }

  // REQUIRES: ok().
  T& operator*() & { return Checked(); }
  const T& operator*() const& { return const_cast<ClientResult*>(this)->Checked(); }
  T&& operator*() && { return std::move(Checked()); }
  T* operator->() { return &Checked(); }
  const T* operator->() const { return &const_cast<ClientResult*>(this)->Checked(); }

 private:
  T& Checked() {
    if (!value_) {
      std::fprintf(stderr, "corpusd client: value of a failed call was used: %s\n",
                   error_.message.c_str());
      std::abort();
    }
    return *value_;
  }

  std::optional<T> value_;
  ClientError error_;
};

// The value of a call that succeeds without saying more.
struct Done {};

}  // namespace corpusd
