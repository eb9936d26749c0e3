// daemon/options.h -- what an administrator may set, from four places: flag > CORPUSD_* variable >
// TOML file > default. One table (option_table) names every option once; this file makes typed,
// checked values of them. Plain data after LoadOptions; any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http_address.h"
#include "store/base/result.h"

namespace corpusd {

// One option: the only place where its names, default and help stand.
struct OptionSpec {
  std::string_view flag;  // "data-dir"; the TOML key is data_dir, the variable CORPUSD_DATA_DIR
  std::string_view value_name;     // "DIR"
  std::string_view default_value;  // "": computed at start, see the help
  std::string_view help;
  std::string_view section = {};  // "pins": flag "pins-total-bytes" is total_bytes of [pins]
  std::string Key() const;        // with its section: "pins.total_bytes"
  std::string Variable() const;
};
const std::vector<OptionSpec>& OptionTable();

enum class LogFormat : uint8_t { kText, kJson };

struct Options {
  std::string data_dir;
  std::string socket_path;
  unsigned socket_mode = 0660;
  std::string access_path;        // "": whoever may connect may do everything
  std::vector<HttpAddress> http;  // none: off
  size_t http_body_bytes_max = size_t{16} << 20;
  unsigned http_connections_max = 256;
  std::chrono::milliseconds http_header_timeout{10000};
  std::chrono::milliseconds http_body_timeout{60000};
  std::chrono::milliseconds http_idle_timeout{75000};
  std::vector<std::string> http_source_roots;  // absolute; none: no sources by path
  std::string model_path;
  std::string weights;           // "auto", "bf16", "int8", "int4"
  std::string device;            // "auto", "cpu", "cuda:N", "cuda:N,M"
  unsigned ranks = 1;            // in this process, on CPUs, those that only have weights included
  unsigned tensor_parallel = 1;  // ranks that share the weights
  std::string rank_file;         // "": none are processes
  unsigned rank = 0;             // of the rank file: 0 is the daemon
  std::chrono::milliseconds rank_timeout{300'000};
  uint64_t device_bytes = 0;  // of the device tier; 0: half of what is free there
  std::string isa;
  std::string kv_format;
  std::string calibration_text;  // "": the bundled text
  double quality_kld_max = 0;    // nats
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
  bool evict_disk = true;
  uint32_t disk_high_percent = 95;
  uint32_t disk_low_percent = 90;
  bool touch_host_memory = false;
  uint64_t inflight_bytes = 0;
  uint64_t prompt_cache_bytes = 0;  // 0: none
  unsigned threads = 0;             // 0: all cores
  std::string log_level;
  LogFormat log_format = LogFormat::kText;
  std::string log_file;  // "": stderr
  size_t frame_bytes_max = 0;
  unsigned connections_max = 0;
  unsigned queries_max = 0;
  std::chrono::milliseconds grace{0};
  uint64_t pins_owner_bytes = 0;  // 0: no limit
  uint64_t pins_total_bytes = 0;  // 0: nine tenths of disk_bytes
  std::string price_currency;
  double price_cpu_hour = 0;  // of one thread; 0: not priced, as the next two
  double price_gpu_hour = 0;
  double price_gb_month = 0;
  uint64_t rag_tokens = 0;         // what a question with retrieved text is reckoned with
  int64_t scrub_interval_ms = 0;   // 0: no scrub by the clock
  uint64_t scrub_bytes_per_s = 0;  // 0: as fast as the disk
};

// What the tenants' quotas may sum to: the disk tier before it evicts.
inline uint64_t TenantQuotaBytes(const Options& options) {
  return options.disk_bytes / 100 * options.disk_high_percent;
}

// Where the ranks of this process run, the first first: {"cuda:0", "cuda:1"}, {"cpu", "cpu"}. One:
// there are no others.
std::vector<std::string> RankDevices(const Options& options);
// Lines of the rank file that share one's weights, its own included: those of CPUs. Devices that
// share them are all of one process.
unsigned RankFileStride(const Options& options);

// Where an effective value came from.
struct OptionValue {
  std::string text;
  // "default", "file /etc/corpusd.toml, line 3", "variable CORPUSD_MODEL", "flag --model"
  std::string origin;
};
using OptionValues = std::map<std::string, OptionValue>;  // by key

using Environment = std::function<const char*(const char* name)>;

struct CommandLine {
  enum class Action : uint8_t { kRun, kCheckConfig, kPrint };
  Action action = Action::kRun;
  std::string output;  // kPrint: what --help or --version says
  std::string config_path;
  std::map<std::string, std::string> flags;  // by key
};

struct LoadedOptions {
  CommandLine::Action action = CommandLine::Action::kRun;
  std::string output;  // kPrint and kCheckConfig: the text to print
  Options options;     // kRun and kCheckConfig
  // kCheckConfig: all that is wrong, one sentence each; where it can, options has the rest.
  std::vector<std::string> problems;
};

// Everything main needs to begin. environment_names: the names of all variables, so that a misspelt
// CORPUSD_ one is an error. kInvalidArgument: the sentence for the user about the first that is
// wrong, but for kCheckConfig, which goes on to the last.
Result<LoadedOptions> LoadOptions(const std::vector<std::string>& arguments,
                                  const Environment& environment,
                                  const std::vector<std::string>& environment_names);

// The steps of LoadOptions, one a file.
Result<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);  // command_line.cc
// Every "key = value" of a TOML file as text, "section.key" in a table; lists and deeper tables are
// refused (toml_file.cc).
struct TomlValue {
  std::string text;
  unsigned line = 0;  // from 1
};
Result<std::map<std::string, TomlValue>> ReadTomlFile(const std::string& path);
// What is wrong is added to problems, one for each value at most.
Options BuildOptions(const OptionValues& values, std::vector<Status>* problems);
// The effective configuration as TOML, each line with its origin: --check-config.
std::string RenderConfig(const OptionValues& values);
// deploy/corpusd.toml: every option commented out with its default and help.
std::string RenderSampleConfig();

// RETURNS the candidate with the smallest edit distance to name.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);
size_t EditDistance(std::string_view a, std::string_view b);

}  // namespace corpusd
