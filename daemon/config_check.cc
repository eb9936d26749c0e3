#include "daemon/config_check.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "daemon/access/access_table.h"

namespace corpusd {

std::vector<std::string> CheckNamedFiles(const Options& options) {
  std::vector<std::string> problems;
  const auto check = [&](const std::string& key, const std::string& path) {
    if (path.empty() || access(path.c_str(), R_OK) == 0) return;
    problems.push_back(key + " = '" + path + "': " + std::strerror(errno));
  };
  check("model", options.model_path);
  check("calibration_text", options.calibration_text);
  check("rank_file", options.rank_file);
  for (const std::string& root : options.http_source_roots) check("http_source_roots", root);
  // What it returns is the first of the problems. Without a size of the disk, which is one already,
  // there is no limit.
  const uint64_t quota_bytes = TenantQuotaBytes(options);
  (void)AccessTable::Read(options.access_path, quota_bytes == 0 ? UINT64_MAX : quota_bytes,
                          &problems);
  return problems;
}

}  // namespace corpusd
