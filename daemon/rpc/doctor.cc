#include "daemon/rpc/doctor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <string_view>

#include "client/wire/utf8.h"
#include "daemon/version.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

enum class Level : uint8_t { kOk, kWarn, kError };

class Report {
 public:
  explicit Report(v1::DoctorReply* reply) : reply_(reply) {}

  void Add(const std::string& name, Level level, const std::string& text) {
    v1::Check* check = reply_->add_checks();
    check->set_name(name);
    check->set_level(level == Level::kOk ? "ok" : level == Level::kWarn ? "warn" : "error");
    check->set_text(ToUtf8(text));
  }

 private:
  v1::DoctorReply* reply_;
};

// Less free disk than this and the next corpus may not fit.
constexpr uint64_t kDiskFreeLow = uint64_t{1} << 30;
// A disk that takes longer than this for one fsync makes every publish slow.
constexpr double kFsyncSlowMs = 50;
constexpr int kFsyncRounds = 5;
// SmolLM2-135M-Instruct Q4_1, which fetch_model gets.
constexpr std::string_view kDefaultModel =
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
// 2024-01-01: a clock before this was never set, and every expiry would be wrong.
constexpr int64_t kClockPlausibleMs = 1704067200000;

void CheckStore(const Services& services, Report& report) {
  for (const std::string& line : services.store.Diagnose()) {
    const size_t colon = line.find(": ");
    const std::string level = line.substr(0, colon);
    const std::string text = colon == std::string::npos ? line : line.substr(colon + 2);
    report.Add("store",
               level == "ok"     ? Level::kOk
               : level == "warn" ? Level::kWarn
                                 : Level::kError,
               text);
  }
}

void CheckWrites(const Services& services, Report& report) {
  const WriteState state = services.store.write_gate().state();
  if (!state.read_only) return report.Add("writes", Level::kOk, "the store takes new blocks");
  report.Add("writes", Level::kError,
             "the store has been read-only for " +
                 std::to_string((services.now_ms() - state.since_ms) / 1000) + " s (" +
                 state.reason + "), " + std::to_string(state.refused) +
                 " calls were refused: free space or mend the disk; it looks again by itself");
}

void CheckEvictions(const Services& services, Report& report) {
  const Options& options = services.options;
  const EvictionCounts counts = services.store.evictions();
  std::string text = options.evict_disk ? "above " + std::to_string(options.disk_high_percent) +
                                              " % of " + FormatBytes(options.disk_bytes) +
                                              " unpinned corpora are evicted down to " +
                                              std::to_string(options.disk_low_percent) + " %"
                                        : "off: a full disk tier refuses new corpora";
  if (counts.passes > 0) {
    text += "; since the start " + std::to_string(counts.blocks) + " blocks (" +
            FormatBytes(counts.bytes) + ") of " + std::to_string(counts.corpora) +
            " corpora went, the last " + AgeText(services.now_ms() - counts.last_ms) +
            " ago: " + counts.last_text;
  }
  uint64_t evicted = 0;
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    evicted += record.state == CorpusState::kEvicted ? 1 : 0;
  }
  if (evicted > 0) {
    text += "; " + std::to_string(evicted) + " corpora are evicted, and computed again when asked";
  }
  if (counts.refusals > 0) {
    text += "; " + std::to_string(counts.refusals) +
            " times too little could go: raise disk_bytes, or unpin";
  }
  report.Add("eviction", counts.refusals > 0 ? Level::kWarn : Level::kOk, text);
}

void CheckLeases(const Services& services, Report& report) {
  const std::vector<LeaseInfo> leases = services.store.leases().List();
  if (leases.empty()) return report.Add("leases", Level::kOk, "leases held: none");
  uint64_t bytes = 0;
  bool overdue = false;
  for (const LeaseInfo& lease : leases) {
    bytes += lease.bytes;
    overdue = overdue || (lease.expires_at_ms != 0 && lease.expires_at_ms < services.now_ms());
  }
  const LeaseInfo& oldest = leases.front();
  report.Add("leases", overdue ? Level::kWarn : Level::kOk,
             "leases held: " + std::to_string(leases.size()) + " of " + FormatBytes(bytes) +
                 ", the oldest for " +
                 std::to_string((services.now_ms() - oldest.since_ms) / 1000) + " s by " +
                 oldest.owner + (overdue ? "; some are overdue" : ""));
}

std::string ScrubCounts(const ScrubState& scrub) {
  return std::to_string(scrub.blocks) + " of " + std::to_string(scrub.total_blocks) +
         " blocks checked, " + std::to_string(scrub.damaged) + " damaged, " +
         std::to_string(scrub.missing) + " missing, " + std::to_string(scrub.repaired) +
         " repaired, " + std::to_string(scrub.contradictions) + " contradictions";
}

void CheckScrub(const Services& services, Report& report) {
  for (const JobRecord& job : services.jobs.List()) {
    if (job.scrub && !IsFinished(job.state)) {
      report.Add("scrub", Level::kOk,
                 "job " + std::to_string(job.id) + " is under way: " + ScrubCounts(*job.scrub));
    }
  }
  const std::optional<JobRecord> last = services.jobs.LastScrub();
  if (!last) {
    return report.Add("scrub", Level::kOk, "none has come to its end yet: corpusctl scrub");
  }
  const ScrubState& scrub = *last->scrub;
  const uint64_t bad = scrub.damaged + scrub.missing;
  const Level level = scrub.contradictions > 0 ? Level::kError
                      : bad > scrub.repaired   ? Level::kWarn
                                               : Level::kOk;
  const int64_t hours = (services.now_ms() - last->finished_at_ms) / 3600000;
  std::string text = "the last one ended " + std::to_string(std::max<int64_t>(hours, 0)) +
                     " hours ago: " + ScrubCounts(scrub);
  if (!scrub.findings.empty()) text += "; first: " + scrub.findings.front();
  report.Add("scrub", level, text);
}

void CheckMisses(const Services& services, Report& report) {
  const MissCounters::Counts counts = services.store.misses().Read();
  std::string text;
  for (size_t i = 0; i < kMissReasons; ++i) {
    if (counts.lookups[i] == 0) continue;
    text += (text.empty() ? "" : "; ") + std::string(MissReasonText(static_cast<MissReason>(i))) +
            " " + std::to_string(counts.lookups[i]) + " (" + std::to_string(counts.blocks[i]) +
            " blocks)";
  }
  report.Add(
      "misses", Level::kOk,
      text.empty() ? "no lookup has missed since the start" : "lookups that missed: " + text);
}

void CheckDisk(const Services& services, Report& report) {
  const std::string& folder = services.options.data_dir;
  struct statvfs disk {};
  if (statvfs(folder.c_str(), &disk) != 0) {
    report.Add("disk", Level::kError, "cannot look at '" + folder + "': " + std::strerror(errno));
    return;
  }
  const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
  report.Add("disk", free_bytes < kDiskFreeLow ? Level::kWarn : Level::kOk,
             FormatBytes(free_bytes) + " free under '" + folder + "'; corpusd may use " +
                 FormatBytes(services.options.disk_bytes));
}

void CheckFsync(const Services& services, Report& report) {
  const std::string path = services.options.data_dir + "/.doctor-fsync";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    report.Add("fsync", Level::kError, "cannot write '" + path + "': " + std::strerror(errno));
    return;
  }
  const std::array<char, 4096> page{};
  bool good = true;
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < kFsyncRounds && good; ++round) {
    good = write(file, page.data(), page.size()) == static_cast<ssize_t>(page.size()) &&
           fsync(file) == 0;
  }
  const int error = errno;
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - begin;
  close(file);
  unlink(path.c_str());
  if (!good) {
    report.Add("fsync", Level::kError, "cannot sync '" + path + "': " + std::strerror(error));
    return;
  }
  const double each_ms = spent.count() / kFsyncRounds;
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%.2f ms for a page and its fsync", each_ms);
  report.Add("fsync", each_ms > kFsyncSlowMs ? Level::kWarn : Level::kOk, text.data());
}

void CheckMemory(const Services& services, Report& report) {
  std::ifstream memory("/proc/meminfo");
  uint64_t available_bytes = 0, huge_pages = 0;
  std::string name, rest;
  uint64_t number = 0;
  while (memory >> name >> number && std::getline(memory, rest)) {
    if (name == "MemAvailable:") available_bytes = number * 1024;
    if (name == "HugePages_Total:") huge_pages = number;
  }
  uint64_t used_bytes = 0;
  for (const TierUsage& tier : services.store.Usage()) {
    if (tier.name == "host") used_bytes = tier.used_bytes;
  }
  const uint64_t wanted =
      services.options.host_bytes - std::min(used_bytes, services.options.host_bytes);
  report.Add(
      "memory", available_bytes < wanted ? Level::kWarn : Level::kOk,
      FormatBytes(available_bytes) + " available; the host tier may still take " +
          FormatBytes(wanted) +
          (available_bytes < wanted ? ": lower host_bytes or the kernel may kill corpusd" : ""));
  std::ifstream transparent("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string mode;
  std::getline(transparent, mode);
  const bool never = mode.find("[never]") != std::string::npos || mode.empty();
  report.Add("huge_pages", never && huge_pages == 0 ? Level::kWarn : Level::kOk,
             never && huge_pages == 0
                 ? "transparent huge pages are off; madvise or always makes large corpora faster"
                 : "transparent: " + mode + ", reserved: " + std::to_string(huge_pages));
}

void CheckRanks(const Services& services, Report& report) {
  for (const RankStatus& rank : services.engine.ranks().ranks) {
    const bool missing = rank.state == "missing";
    std::string text = "rank " + std::to_string(rank.rank) + " (" + rank.name + ") ";
    if (rank.state == "weights") {
      text += "computes products";
    } else {
      text += missing ? "is missing: others do what it would" : rank.state;
    }
    if (rank.weight_bytes > 0) text += ", " + FormatBytes(rank.weight_bytes) + " of the weights";
    if (rank.capacity_bytes > 0) {
      text += ", " + FormatBytes(rank.used_bytes) + " of " + FormatBytes(rank.capacity_bytes) +
              " of blocks in memory";
    }
    if (!rank.error.empty()) text += "; the last group ended: " + rank.error;
    report.Add("ranks", missing ? Level::kWarn : Level::kOk, text);
  }
}

void CheckSocket(const Services& services, Report& report) {
  const std::string& path = services.options.socket_path;
  struct stat entry {};
  if (stat(path.c_str(), &entry) != 0) {
    report.Add("socket", Level::kError,
               "'" + path + "' is gone: " + std::strerror(errno) + "; restart corpusd");
    return;
  }
  std::array<char, 8> mode;
  std::snprintf(mode.data(), mode.size(), "%04o", entry.st_mode & 07777);
  const bool world = (entry.st_mode & S_IRWXO) != 0;
  report.Add("socket", world ? Level::kWarn : Level::kOk,
             "'" + path + "' has mode " + mode.data() +
                 (world ? ": every user of this machine may use it" : ""));
}

void CheckEngine(const Services& services, Report& report) {
  const ModelSummary& model = services.engine.model();
  const std::string& mode = services.options.weights;
  const std::string weights = mode.empty() || mode == "auto" ? "as stored" : mode + " or smaller";
  report.Add("model", Level::kOk,
             model.name + " (" + model.architecture + "), context " +
                 std::to_string(model.context_tokens) + " tokens, weights " + weights +
                 ", sha256 " + model.digest);
  if (model.digest == kDefaultModel) {
    report.Add("long_texts", Level::kOk,
               "of lookups in an exact corpus of 8K tokens Gemma 3 270M finds twice as many as "
               "this model (fetch_model gemma3); it holds no segmented corpora");
  }
  report.Add("backend", Level::kOk, model.backend);
  const int64_t now = services.now_ms();
  report.Add("clock", now < kClockPlausibleMs ? Level::kError : Level::kOk,
             now < kClockPlausibleMs ? "the clock is not set: expiries would be wrong"
                                     : "Unix time " + std::to_string(now / 1000) + " s");
  report.Add("daemon", Level::kOk,
             "corpusd " + std::string(kVersion) + ", pid " + std::to_string(getpid()));
}

}  // namespace

Result<v1::Response> HandleDoctor(const Services& services) {
  v1::Response response;
  Report report(response.mutable_doctor());
  CheckEngine(services, report);
  CheckRanks(services, report);
  CheckSocket(services, report);
  CheckStore(services, report);
  CheckWrites(services, report);
  CheckEvictions(services, report);
  CheckLeases(services, report);
  CheckScrub(services, report);
  CheckMisses(services, report);
  CheckDisk(services, report);
  CheckFsync(services, report);
  CheckMemory(services, report);
  return response;
}

}  // namespace corpusd
