// tests/bench/bench_command.h -- the subcommands of corpus-bench and what they share: options,
// clock, medians. A new subcommand is one file that defines an AddBenchCommands function and one
// line in kBenchCommands. One thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "store/base/status.h"

namespace CLI {
class App;
}

namespace corpusd {

struct ModelSessionOptions;

// Adds its subcommands; their callbacks leave what went wrong in *status.
using AddBenchCommands = void (*)(CLI::App& app, Status* status);
void AddModelCommands(CLI::App& app, Status* status);   // prefill, attention-decode
void AddReplayCommands(CLI::App& app, Status* status);  // replay
void AddDiskTierCommand(CLI::App& app, Status* status);
void AddHostTierCommand(CLI::App& app, Status* status);
void AddChainCommand(CLI::App& app, Status* status);
void AddGrowthCommand(CLI::App& app, Status* status);
void AddIndexScanCommand(CLI::App& app, Status* status);
void AddSegmentedCommand(CLI::App& app, Status* status);
void AddScoutCommand(CLI::App& app, Status* status);
void AddPlanCommand(CLI::App& app, Status* status);
void AddStepCommand(CLI::App& app, Status* status);
void AddFollowUpCommand(CLI::App& app, Status* status);

inline constexpr AddBenchCommands kBenchCommands[] = {
    AddModelCommands, AddReplayCommands, AddDiskTierCommand,  AddHostTierCommand,
    AddChainCommand,  AddGrowthCommand,  AddIndexScanCommand, AddSegmentedCommand,
    AddScoutCommand,  AddPlanCommand,    AddStepCommand,      AddFollowUpCommand,
};

// --smoke and -o table|json, alike in every subcommand.
void AddCommonOptions(CLI::App* command, bool* smoke, std::string* format);
// --model, --device, --isa, --threads and --calibration-dir, of benches that open a model on any
// device.
void AddSessionOptions(CLI::App* command, ModelSessionOptions* session);

using BenchClock = std::chrono::steady_clock;
double SecondsSince(BenchClock::time_point start);

struct Spread {
  double median = 0, min = 0, max = 0;
};
// REQUIRES: values is not empty.
Spread SpreadOf(std::vector<double> values);

}  // namespace corpusd
