#include "tests/bench/bench_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "store/base/check.h"
#include "tests/eval/model_session.h"

namespace corpusd {

void AddCommonOptions(CLI::App* command, bool* smoke, std::string* format) {
  command->add_flag("--smoke", *smoke, "smallest sizes, for the test suite");
  command->add_option("-o,--output", *format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
}

void AddSessionOptions(CLI::App* command, ModelSessionOptions* session) {
  command->add_option("--model", session->model_path, "GGUF file, or a folder")->required();
  command->add_option("--device", session->device, "cpu (default), auto, cuda:N");
  command->add_option("--isa", session->isa, "auto, avx2, avx512, amx");
  command->add_option("--threads", session->threads, "0: all");
  command->add_option("--calibration-dir", session->calibration_dir,
                      "where calibrations of cq formats are kept");
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
