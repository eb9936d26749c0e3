#include "daemon/options.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <set>

#include "store/base/units.h"

namespace corpusd {
namespace {

// A frame must hold a 1 MiB piece of a source and its envelope; its length field has 32 bits.
constexpr uint64_t kFrameBytesFloor = uint64_t{2} << 20;
constexpr uint64_t kFrameBytesCeiling = uint64_t{1} << 30;
constexpr uint64_t kHttpBodyBytesFloor = uint64_t{64} << 10;
constexpr uint64_t kConnectionsCeiling = 65536;
constexpr uint64_t kQueriesCeiling = 1024;
constexpr uint64_t kThreadsCeiling = 4096;
constexpr uint64_t kRanksCeiling = 64;
// Below, a scrub of a corpus of 1 GB would take over a day.
constexpr uint64_t kScrubRateFloor = uint64_t{16} << 10;
constexpr double kPriceCeiling = 1e9;
constexpr uint64_t kRagTokensCeiling = uint64_t{1} << 24;
// A misspelt variable is this near to a real one; farther ones belong to other programs.
constexpr size_t kMisspeltDistance = 2;

std::vector<std::string> AllKeys() {
  std::vector<std::string> keys;
  for (const OptionSpec& spec : OptionTable()) keys.push_back(spec.Key());
  return keys;
}

std::string DefaultOf(const OptionSpec& spec, const Environment& environment) {
  const auto folder = [&](const char* variable, std::string_view inside,
                          std::string_view otherwise) {
    const char* base = environment(variable);
    if (base == nullptr || *base == '\0') return std::string(otherwise);
    return std::string(base) + std::string(inside);
  };
  if (spec.flag == "data-dir") return folder("XDG_STATE_HOME", "/corpusd", "/var/lib/corpusd");
  if (spec.flag == "socket") {
    return folder("XDG_RUNTIME_DIR", "/corpusd/corpusd.sock", "/run/corpusd/corpusd.sock");
  }
  return std::string(spec.default_value);
}

using Problems = std::vector<Status>;

void CheckVariableNames(const std::vector<std::string>& names, Problems* problems) {
  std::vector<std::string> known = {"CORPUSD_CONFIG"};
  for (const OptionSpec& spec : OptionTable()) known.push_back(spec.Variable());
  for (const std::string& name : names) {
    if (name.rfind("CORPUSD_", 0) != 0) continue;
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = NearestName(name, known);
    if (EditDistance(name, nearest) <= kMisspeltDistance) {
      problems->push_back(
          InvalidArgumentError("unknown variable " + name + "; did you mean " + nearest + "?"));
    }
  }
}

void MergeFile(const std::string& path, OptionValues* values, Problems* problems) {
  const auto file = ReadTomlFile(path);
  if (!file.ok()) return problems->push_back(file.status());
  for (const auto& [key, value] : *file) {
    const std::string line = std::to_string(value.line);
    const auto known = values->find(key);
    if (known != values->end()) {
      known->second = {value.text, "file " + path + ", line " + line};
      continue;
    }
    problems->push_back(InvalidArgumentError("unknown key '" + key + "' in line " + line + " of '" +
                                             path + "'; did you mean '" +
                                             NearestName(key, AllKeys()) + "'?"));
  }
}

OptionValues MergeValues(const CommandLine& line, const Environment& environment,
                         Problems* problems) {
  OptionValues values;
  for (const OptionSpec& spec : OptionTable()) {
    values[spec.Key()] = {DefaultOf(spec, environment), "default"};
  }
  std::string config_path = line.config_path;
  if (const char* variable = environment("CORPUSD_CONFIG"); config_path.empty() && variable) {
    config_path = variable;
  }
  if (!config_path.empty()) MergeFile(config_path, &values, problems);
  for (const OptionSpec& spec : OptionTable()) {
    const std::string variable = spec.Variable();
    if (const char* text = environment(variable.c_str()); text != nullptr) {
      values[spec.Key()] = {text, "variable " + variable};
    }
    const auto flag = line.flags.find(spec.Key());
    if (flag != line.flags.end()) {
      values[spec.Key()] = {flag->second, "flag --" + std::string(spec.flag)};
    }
  }
  return values;
}

// Reads one value after the other and notes those that are wrong.
class ValueReader {
 public:
  ValueReader(const OptionValues& values, Problems* problems)
      : values_(values), problems_(*problems) {}

  const std::string& Text(const std::string& key) { return values_.at(key).text; }

  void Refuse(const std::string& key, const std::string& why) {
    if (!refused_.insert(key).second) return;
    const OptionValue& value = values_.at(key);
    problems_.push_back(
        InvalidArgumentError(key + " = '" + value.text + "' (" + value.origin + "): " + why));
  }

  uint64_t Number(const std::string& key, uint64_t low, uint64_t high, int base = 10) {
    const std::string& text = Text(key);
    uint64_t number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number, base);
    const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
    if (!whole || number < low || number > high) {
      Refuse(key, base == 8 ? "must be an octal number up to 0777"
                            : "must be a whole number from " + std::to_string(low) + " to " +
                                  std::to_string(high));
    }
    return number;
  }

  double Positive(const std::string& key) {
    const std::optional<double> number = Decimal(key);
    if (!number || !(*number > 0)) Refuse(key, "must be a number above 0");
    return number.value_or(0);
  }

  double Price(const std::string& key) {
    const std::optional<double> number = Decimal(key);
    if (!number || !(*number >= 0 && *number <= kPriceCeiling)) {
      Refuse(key, "must be a price from 0 on");
    }
    return number.value_or(0);
  }

  uint64_t Bytes(const std::string& key, uint64_t low, uint64_t high) {
    auto bytes = ParseBytes(Text(key));
    if (!bytes.ok()) {
      Refuse(key, bytes.status().message());
      return 0;
    }
    if (*bytes < low || *bytes > high) {
      Refuse(key, "must be from " + std::to_string(low) + " to " + std::to_string(high) + " bytes");
    }
    return *bytes;
  }

  // The same; "/s" may follow.
  uint64_t BytesPerSecond(const std::string& key, uint64_t low) {
    std::string_view text = Text(key);
    if (text.ends_with("/s")) text.remove_suffix(2);
    const auto rate = ParseBytes(text);
    if (!rate.ok()) {
      Refuse(key, rate.status().message());
      return 0;
    }
    if (*rate < low) Refuse(key, "must be at least " + FormatBytes(low) + "/s");
    return *rate;
  }

  int64_t Milliseconds(const std::string& key) {
    auto time = ParseDurationMs(Text(key));
    if (time.ok()) return static_cast<int64_t>(*time);
    Refuse(key, time.status().message());
    return 0;
  }

  std::string OneOf(const std::string& key, const std::vector<std::string>& allowed) {
    const std::string& text = Text(key);
    if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
      std::string list;
      for (const std::string& name : allowed) list += (list.empty() ? "" : ", ") + name;
      Refuse(key, "must be one of " + list + "; did you mean " + NearestName(text, allowed) + "?");
    }
    return text;
  }

 private:
  std::optional<double> Decimal(const std::string& key) {
    const std::string& text = Text(key);
    double number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
    return number;
  }

  const OptionValues& values_;
  Problems& problems_;
  std::set<std::string> refused_;  // keys
};

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string NearestName(std::string_view name, const std::vector<std::string>& candidates) {
  std::string nearest;
  size_t nearest_distance = SIZE_MAX;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(name, candidate);
    if (distance >= nearest_distance) continue;
    nearest = candidate;
    nearest_distance = distance;
  }
  return nearest;
}

namespace {

std::vector<std::string> SplitAtCommas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    if (!part.empty()) parts.emplace_back(part);
    text.remove_prefix(std::min(text.size(), part.size() + 1));
  }
  return parts;
}

std::chrono::milliseconds ReadTimeout(ValueReader& reader, const std::string& key) {
  const int64_t time_ms = reader.Milliseconds(key);
  if (time_ms < 1) reader.Refuse(key, "must be more than 0");
  return std::chrono::milliseconds(time_ms);
}

void ReadHttpOptions(ValueReader& reader, Options* options) {
  auto addresses = ParseHttpAddresses(reader.Text("http"));
  if (addresses.ok()) {
    options->http = *std::move(addresses);
  } else {
    reader.Refuse("http", addresses.status().message());
  }
  options->http_body_bytes_max =
      reader.Bytes("http_max_body_bytes", kHttpBodyBytesFloor, kFrameBytesCeiling);
  options->http_connections_max =
      static_cast<unsigned>(reader.Number("http_max_connections", 1, kConnectionsCeiling));
  options->http_header_timeout = ReadTimeout(reader, "http_header_timeout");
  options->http_body_timeout = ReadTimeout(reader, "http_body_timeout");
  options->http_idle_timeout = ReadTimeout(reader, "http_idle_timeout");
  options->http_source_roots = SplitAtCommas(reader.Text("http_source_roots"));
  for (const std::string& root : options->http_source_roots) {
    if (!root.starts_with('/')) reader.Refuse("http_source_roots", "must be absolute folders");
  }
}

// What several ranks exclude.
void ReadRankOptions(ValueReader& reader, Options* options) {
  options->ranks = static_cast<unsigned>(reader.Number("ranks", 1, kRanksCeiling));
  options->rank_file = reader.Text("rank_file");
  options->rank = static_cast<unsigned>(reader.Number("rank", 0, kRanksCeiling - 1));
  options->rank_timeout = ReadTimeout(reader, "rank_timeout");
  options->tensor_parallel =
      static_cast<unsigned>(reader.Number("tensor_parallel", 1, kRanksCeiling));
  const bool devices = options->device.find(',') != std::string::npos;
  const bool cuda = options->device.starts_with("cuda:");
  if (options->tensor_parallel > 1 && cuda) {
    const size_t count = RankDevices(*options).size();
    const bool fits = options->rank_file.empty() ? count % options->tensor_parallel == 0
                                                 : count == options->tensor_parallel;
    if (!fits) {
      reader.Refuse("tensor_parallel",
                    "takes as many CUDA devices of one process, as device cuda:0,1 and 2, or, "
                    "without a rank file, two times as many or more: not " +
                        std::to_string(options->tensor_parallel) + " with device " +
                        options->device);
    }
  }
  if (options->tensor_parallel > 1 && options->rank_file.empty() && !cuda) {
    if (options->ranks == 1) options->ranks = options->tensor_parallel;
    if (options->ranks % options->tensor_parallel != 0) {
      reader.Refuse("tensor_parallel",
                    "must divide the number of ranks, " + std::to_string(options->ranks));
    }
  }
  if (options->ranks > 1 && options->device.starts_with("cuda:")) {
    reader.Refuse("ranks", "are of CPUs: those of devices are named by device, as cuda:0,1");
  }
  const bool parts = devices && options->tensor_parallel == 1;
  if (!options->rank_file.empty() && (options->ranks > 1 || parts)) {
    reader.Refuse("rank_file",
                  "has one rank a process: not with ranks, nor with several devices that do not "
                  "share the weights");
  }
  if (options->rank > 0 && options->rank_file.empty()) {
    reader.Refuse("rank", "is a line of a rank file: give rank_file");
  }
}

}  // namespace

unsigned RankFileStride(const Options& options) {
  return options.device.starts_with("cuda:") ? 1 : options.tensor_parallel;
}

std::vector<std::string> RankDevices(const Options& options) {
  if (!options.device.starts_with("cuda:")) {
    return std::vector<std::string>(options.ranks, options.ranks > 1 ? "cpu" : options.device);
  }
  std::vector<std::string> devices;
  for (std::string& number : SplitAtCommas(std::string_view(options.device).substr(5))) {
    devices.push_back("cuda:" + number);
  }
  return devices.empty() ? std::vector<std::string>{options.device} : devices;
}

Options BuildOptions(const OptionValues& values, Problems* problems) {
  ValueReader reader(values, problems);
  Options options;
  options.data_dir = reader.Text("data_dir");
  if (options.data_dir.empty()) reader.Refuse("data_dir", "must not be empty");
  options.socket_path = reader.Text("socket");
  if (options.socket_path.empty()) reader.Refuse("socket", "must not be empty");
  options.socket_mode = static_cast<unsigned>(reader.Number("socket_mode", 0, 0777, 8));
  options.access_path = reader.Text("access");
  ReadHttpOptions(reader, &options);
  options.model_path = reader.Text("model");
  options.device = reader.Text("device");
  if (options.device != "auto" && options.device != "cpu" && !options.device.starts_with("cuda:")) {
    reader.Refuse("device", "must be one of: auto, cpu, cuda:N, cuda:N,M");
  }
  ReadRankOptions(reader, &options);
  options.weights = reader.OneOf("weights", {"auto", "bf16", "int8", "int4"});
  options.isa = reader.OneOf("isa", {"auto", "avx2", "avx512", "amx"});
  options.kv_format = reader.Text("kv_format");
  options.calibration_text = reader.Text("calibration_text");
  options.quality_kld_max = reader.Positive("quality_kld_max");
  options.host_bytes = reader.Bytes("host_bytes", uint64_t{1} << 20, UINT64_MAX);
  options.disk_bytes = reader.Bytes("disk_bytes", uint64_t{1} << 20, UINT64_MAX);
  options.evict_disk = reader.OneOf("disk_eviction", {"auto", "off"}) == "auto";
  options.disk_high_percent = static_cast<uint32_t>(reader.Number("disk_high_percent", 1, 100));
  options.disk_low_percent = static_cast<uint32_t>(
      reader.Number("disk_low_percent", 1, std::max(options.disk_high_percent, 1U)));
  options.touch_host_memory = reader.OneOf("host_memory", {"grow", "touch"}) == "touch";
  options.inflight_bytes = reader.Bytes("inflight_bytes", uint64_t{1} << 20, UINT64_MAX);
  options.prompt_cache_bytes = reader.Bytes("prompt_cache_bytes", 0, UINT64_MAX);
  options.device_bytes = reader.Bytes("device_bytes", 0, UINT64_MAX);
  if (options.device_bytes != 0 && !options.device.starts_with("cuda:")) {
    reader.Refuse("device_bytes", "must be 0 unless device is cuda:N: a CPU has no device tier");
  }
  options.threads = static_cast<unsigned>(reader.Number("threads", 0, kThreadsCeiling));
  options.log_level = reader.OneOf("log_level", {"trace", "debug", "info", "warn", "error", "off"});
  options.log_file = reader.Text("log_file");
  options.log_format =
      reader.OneOf("log_format", {"text", "json"}) == "json" ? LogFormat::kJson : LogFormat::kText;
  options.frame_bytes_max = reader.Bytes("max_frame_bytes", kFrameBytesFloor, kFrameBytesCeiling);
  options.connections_max =
      static_cast<unsigned>(reader.Number("max_connections", 1, kConnectionsCeiling));
  options.queries_max = static_cast<unsigned>(reader.Number("max_queries", 1, kQueriesCeiling));
  options.grace = std::chrono::milliseconds(reader.Milliseconds("grace"));
  options.pins_owner_bytes = reader.Bytes("pins.owner_bytes", 0, UINT64_MAX);
  options.pins_total_bytes = reader.Bytes("pins.total_bytes", 0, UINT64_MAX);
  options.price_currency = reader.Text("prices.currency");
  options.price_cpu_hour = reader.Price("prices.cpu_hour");
  options.price_gpu_hour = reader.Price("prices.gpu_hour");
  options.price_gb_month = reader.Price("prices.gb_month");
  options.rag_tokens = reader.Number("prices.rag_tokens", 1, kRagTokensCeiling);
  options.scrub_interval_ms =
      reader.Text("scrub.interval") == "off" ? 0 : reader.Milliseconds("scrub.interval");
  options.scrub_bytes_per_s = reader.BytesPerSecond("scrub.rate", kScrubRateFloor);
  return options;
}

std::string RenderConfig(const OptionValues& values) {
  std::string text;
  for (const OptionSpec& spec : OptionTable()) {
    const OptionValue& value = values.at(spec.Key());
    std::string quoted;
    for (char c : value.text) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    text += spec.Key() + " = \"" + quoted + "\"  # " + value.origin + "\n";
  }
  return text;
}

std::string RenderSampleConfig() {
  std::string text =
      "# corpusd.toml: every option of corpusd with its default. A flag (--data-dir) and a "
      "variable\n"
      "# (CORPUSD_DATA_DIR) of the same name go before this file. Check it with:\n"
      "#   corpusd --config corpusd.toml --check-config\n";
  // In TOML a table lasts until the next one, so what has no section comes first.
  std::vector<std::string_view> sections = {""};
  for (const OptionSpec& spec : OptionTable()) {
    if (std::find(sections.begin(), sections.end(), spec.section) == sections.end()) {
      sections.push_back(spec.section);
    }
  }
  for (const std::string_view section : sections) {
    if (!section.empty()) text += "\n[" + std::string(section) + "]\n";
    for (const OptionSpec& spec : OptionTable()) {
      if (spec.section != section) continue;
      const std::string key = spec.Key().substr(section.empty() ? 0 : section.size() + 1);
      text += "\n# " + std::string(spec.help) + "\n# " + key + " = \"" +
              std::string(spec.default_value) + "\"\n";
    }
  }
  return text;
}

Result<LoadedOptions> LoadOptions(const std::vector<std::string>& arguments,
                                  const Environment& environment,
                                  const std::vector<std::string>& environment_names) {
  LoadedOptions loaded;
  ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments));
  loaded.action = line.action;
  loaded.output = line.output;
  if (line.action == CommandLine::Action::kPrint) return loaded;
  Problems problems;
  CheckVariableNames(environment_names, &problems);
  const OptionValues values = MergeValues(line, environment, &problems);
  loaded.options = BuildOptions(values, &problems);
  if (line.action == CommandLine::Action::kCheckConfig) {
    loaded.output = RenderConfig(values);
    for (const Status& problem : problems) loaded.problems.emplace_back(problem.message());
    return loaded;
  }
  if (!problems.empty()) return problems.front();
  if (loaded.options.model_path.empty()) {
    return InvalidArgumentError(
        "no model: give --model FILE.gguf or FOLDER, CORPUSD_MODEL or model in the file");
  }
  return loaded;
}

}  // namespace corpusd
