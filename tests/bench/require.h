// tests/bench/require.h -- for programs that have nothing to do after an error: it is printed, and
// they end with status 1. Any thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "store/base/result.h"

namespace corpusd {

inline void Require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}
template <typename T>
T Require(Result<T> result) {
  Require(result.status());
  return std::move(*result);
}

}  // namespace corpusd
