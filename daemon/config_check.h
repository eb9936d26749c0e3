// daemon/config_check.h -- what of a configuration can be wrong beside its values: the files and
// folders that they name, before a daemon depends on them. Reads, changes nothing. One thread.
#pragma once

#include <string>
#include <vector>

#include "daemon/options.h"

namespace corpusd {

// One sentence for each thing that is wrong: in the access table and its tokens, with file and
// line, and each file or folder that is not there. None: a daemon would not stumble over them.
std::vector<std::string> CheckNamedFiles(const Options& options);

}  // namespace corpusd
