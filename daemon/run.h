// daemon/run.h -- the life of the program corpusd: options, daemon, signals, exit code. Called by
// main only.
#pragma once

#include <string>
#include <vector>

namespace corpusd {

// RETURNS the exit code: 0 after a clean stop, 2 for a wrong option, 1 for what cannot be opened.
int RunCorpusd(const std::vector<std::string>& arguments);

}  // namespace corpusd
