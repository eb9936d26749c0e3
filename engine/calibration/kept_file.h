// engine/calibration/kept_file.h -- small files that are dear to make, such as calibrations:
// written durably, under a name that says what they were made from and what they hold. Any thread;
// writers of one name make the same bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/base/status.h"

namespace corpusd {

// Written beside its place, then renamed, so that a reader finds a whole file or none. The folder
// is made. "": nothing is kept. kIoError with what failed.
Status KeepFile(const std::string& folder, const std::string& name, std::string_view bytes);

// Paths of the folder's files whose names contain `part` and end with `suffix`, in order of names;
// none if the folder is "" or is not there.
std::vector<std::string> KeptFiles(const std::string& folder, std::string_view part,
                                   std::string_view suffix);

}  // namespace corpusd
