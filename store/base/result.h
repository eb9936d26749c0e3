// store/base/result.h -- Result<T>: a T, or the Status that says why there is none. Not for bugs:
// asking an error for its value hits CHECK. Values; any thread.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "store/base/check.h"
#include "store/base/status.h"

namespace corpusd {

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit, so `return value;` works
  // REQUIRES: !status.ok().
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit, as above
    CHECK(!status_.ok()) << "a Result without a value needs an error";
  }
  // So that `return make_unique<Derived>()` converts to Result<unique_ptr<Base>>.
  template <typename U>
  requires(std::is_convertible_v<U, T> && !std::is_same_v<std::decay_t<U>, T> &&
           !std::is_same_v<std::decay_t<U>, Status> && !std::is_same_v<std::decay_t<U>, Result<T>>)
      Result(U&& value)
      : value_(std::forward<U>(value)) {}  // NOLINT: implicit, as above

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& operator*() & {
    CHECK(ok()) << status_.ToString();
    return *value_;
  }
  const T& operator*() const& {
    CHECK(ok()) << status_.ToString();
    return *value_;
  }
  T&& operator*() && {
    CHECK(ok()) << status_.ToString();
    return std::move(*value_);
  }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace corpusd

// ASSIGN_OR_RETURN(auto corpus, catalog.Get(name));
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_INNER(CORPUSD_STATUS_CONCAT(result_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_INNER(result, target, expression) \
  auto result = (expression);                              \
  if (!result.ok()) return result.status();                \
  target = std::move(*result)
