// tests/support/test_paths.h -- where tests find the files they read: the real model, golden files.
// Not where they write: that is temp_dir.h. Reads the environment; any thread.
#pragma once

#include <string>
#include <string_view>

namespace corpusd {

// The default model: $CORPUSD_TEST_MODEL, or where deploy/fetch_model puts it. It may be absent;
// tests that need it then skip themselves:
//   if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run
//   deploy/fetch_model";
std::string TestModelPath();
bool TestModelExists();

// A file of tests/golden in the source tree.
std::string GoldenPath(std::string_view name);
// The whole file. Aborts the test program if it cannot be read.
std::string ReadWholeFile(const std::string& path);

}  // namespace corpusd
