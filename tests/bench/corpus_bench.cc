// corpus-bench: speed, offline, with the product's own code, beside the machine's ceilings from the
// same run. Each subcommand lives in its own file; see --help of each.
#include <CLI/CLI.hpp>
#include <iostream>

#include "tests/bench/bench_command.h"

int main(int argc, char** argv) {
  CLI::App app("Offline speed, beside the machine's ceilings from the same run.\n");
  app.require_subcommand(1);
  corpusd::Status status;
  for (const corpusd::AddBenchCommands add : corpusd::kBenchCommands) add(app, &status);
  CLI11_PARSE(app, argc, argv);
  if (status.ok()) return 0;
  std::cerr << "corpus-bench: " << status.message() << "\n";
  return status.code() == corpusd::StatusCode::kInvalidArgument ? 2 : 1;
}
