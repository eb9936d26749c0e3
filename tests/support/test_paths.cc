#include "tests/support/test_paths.h"

#include <cstdlib>
#include <filesystem>

#include "store/base/check.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT: tests change it before they start threads
  return value == nullptr ? "" : value;
}

}  // namespace

std::string TestModelPath() {
  const std::string given = Environment("CORPUSD_TEST_MODEL");
  if (!given.empty()) return given;
  std::string cache = Environment("XDG_CACHE_HOME");
  if (cache.empty()) cache = Environment("HOME") + "/.cache";
  return cache + "/corpusd/SmolLM2-135M-Instruct.Q4_1.gguf";
}

bool TestModelExists() {
  std::error_code ignored;
  return std::filesystem::is_regular_file(TestModelPath(), ignored);
}

std::string GoldenPath(std::string_view name) {
  return std::string(CORPUSD_SOURCE_DIR) + "/tests/golden/" + std::string(name);
}

std::string ReadWholeFile(const std::string& path) {
  auto text = ReadFile(path);
  CHECK(text.ok()) << text.status().ToString();
  return *std::move(text);
}

}  // namespace corpusd
