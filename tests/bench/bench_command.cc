#include "tests/bench/bench_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "store/base/check.h"

namespace corpusd {

void AddCommonOptions(CLI::App* command, bool* smoke, std::string* format) {
  command->add_flag("--smoke", *smoke, "smallest sizes, for the test suite");
  command->add_option("-o,--output", *format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
}

double SecondsSince(BenchClock::time_point start) {
  return std::chrono::duration<double>(BenchClock::now() - start).count();
}

Spread SpreadOf(std::vector<double> values) {
  CHECK(!values.empty()) << "no measurement";
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

}  // namespace corpusd
