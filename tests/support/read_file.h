// tests/support/read_file.h -- a whole file into memory, for tools and tests; no limit on its size.
// Any thread.
#pragma once

#include <string>

#include "store/base/result.h"

namespace corpusd {

// kNotFound if it cannot be opened, kIoError if it cannot be read to its end.
Result<std::string> ReadFile(const std::string& path);

}  // namespace corpusd
