// corpus-bench disk-tier: ways to lay blocks out on a disk beside raw direct I/O, in interleaved
// rounds, with random bytes and the page cache dropped before each reading.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "store/base/crc32c.h"
#include "store/base/units.h"
#include "store/direct_file.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/disk_layout.h"
#include "tests/bench/raw_disk.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct Arguments {
  std::string folder = std::filesystem::temp_directory_path().string();
  std::string bytes = "4GiB";
  uint32_t rounds = 5;
  uint32_t publish_blocks = 16;
  uint32_t readers = 8;
  bool smoke = false;
  std::string format = "table";
};

struct NamedLayout {
  const char* name;
  std::unique_ptr<DiskLayout> (*make)();
};
constexpr NamedLayout kLayouts[] = {{"segments", MakeSegments},
                                    {"ingested tables", MakeIngestedTables},
                                    {"inline tables", MakeInlineTables},
                                    {"BlobDB", MakeBlobs}};
// SmolLM2 at 4 bit; two sizes of a larger model.
constexpr uint64_t kPayloadBytes[] = {819'200, 1'310'720, 2'097'152};

uint64_t PayloadBytesOf(uint32_t index) { return kPayloadBytes[index % std::size(kPayloadBytes)]; }

// What this process has given to the disk.
uint64_t WrittenBytes() {
  std::ifstream file("/proc/self/io");
  std::string key;
  for (uint64_t value = 0; file >> key >> value;) {
    if (key == "write_bytes:") return value;
  }
  return 0;
}

uint64_t DiskBytesOf(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    struct stat info {};
    if (stat(entry.path().c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
      bytes += 512 * static_cast<uint64_t>(info.st_blocks);
    }
  }
  return bytes;
}

void DropPageCache(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    (void)fdatasync(fd);  // dirty pages cannot be dropped
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

// One layout through one round. The larger corpus, 1, is the one that is measured and removed.
class Round {
 public:
  Round(DiskLayout& layout, std::string folder, const Arguments& a, uint64_t bytes, uint64_t seed)
      : layout_(layout), folder_(std::move(folder)), a_(a), bytes_(bytes), seed_(seed) {}

  Result<std::map<std::string, double>> Run() {
    RETURN_IF_ERROR(layout_.Open(folder_));
    uint64_t ignored = 0;
    RETURN_IF_ERROR(WriteCorpus(0, bytes_ / 8, &ignored).status());
    RETURN_IF_ERROR(layout_.Settle());
    const uint64_t before = WrittenBytes();
    uint64_t payload_bytes = 0;
    ASSIGN_OR_RETURN(const double write_seconds, WriteCorpus(1, bytes_, &payload_bytes));
    RETURN_IF_ERROR(layout_.Settle());
    const auto bytes = static_cast<double>(payload_bytes);
    figures_["write"] = bytes / write_seconds;
    figures_["amplification"] = static_cast<double>(WrittenBytes() - before) / bytes;
    std::vector<uint32_t> order(crcs_[1].size());
    std::iota(order.begin(), order.end(), 0);
    ASSIGN_OR_RETURN(const double read_seconds, ReadAll(order));
    figures_["read"] = bytes / read_seconds;
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed_));
    ASSIGN_OR_RETURN(const double random_seconds, ReadAll(order));
    figures_["random"] = bytes / random_seconds;
    const auto open = BenchClock::now();
    RETURN_IF_ERROR(layout_.Open(folder_));
    RETURN_IF_ERROR(ReadOne(0));
    figures_["open_ms"] = SecondsSince(open) * 1e3;
    return MeasureRemoval();
  }

 private:
  Result<double> WriteCorpus(uint32_t corpus, uint64_t bytes, uint64_t* written) {
    PageBuffer memory(PagesOf(a_.publish_blocks * kPayloadBytes[2]));
    double seconds = 0;
    while (*written < bytes) {
      std::vector<LayoutBlock> blocks;
      uint64_t offset = 0;
      for (uint32_t i = 0; i < a_.publish_blocks && *written < bytes; ++i) {
        const auto index = static_cast<uint32_t>(crcs_[corpus].size());
        const auto payload = memory.bytes().subspan(offset, PayloadBytesOf(index));
        FillRandom(++seed_, payload.data(), payload.size());
        crcs_[corpus].push_back(Crc32c(payload));
        blocks.push_back({corpus, index, payload});
        offset += payload.size();
        *written += payload.size();
      }
      const auto start = BenchClock::now();
      RETURN_IF_ERROR(layout_.Write(blocks));
      seconds += SecondsSince(start);
    }
    return seconds;
  }

  Status ReadInto(uint32_t index, PageBuffer* buffer) {
    const auto target = buffer->bytes().first(PayloadBytesOf(index));
    RETURN_IF_ERROR(layout_.Read(1, index, target));
    return Crc32c(target) == crcs_[1][index] ? OkStatus()
                                             : CorruptionError("wrong bytes came back");
  }
  Status ReadOne(uint32_t index) {
    PageBuffer buffer(PagesOf(kPayloadBytes[2]));
    return ReadInto(index, &buffer);
  }

  Result<double> ReadAll(const std::vector<uint32_t>& order) {
    DropPageCache(folder_);
    std::atomic<size_t> next{0};
    std::mutex mutex;
    Status failed;
    const auto start = BenchClock::now();
    const auto read = [&] {
      PageBuffer buffer(PagesOf(kPayloadBytes[2]));
      for (size_t i = next.fetch_add(1); i < order.size(); i = next.fetch_add(1)) {
        Status status = ReadInto(order[i], &buffer);
        if (status.ok()) continue;
        const std::lock_guard lock(mutex);
        failed = std::move(status);
      }
    };
    std::vector<std::jthread> threads;
    for (uint32_t t = 0; t < a_.readers; ++t) threads.emplace_back(read);
    threads.clear();
    RETURN_IF_ERROR(failed);
    return SecondsSince(start);
  }

  // Until all but a tenth of the removed corpus is back, or half a minute is over.
  Result<std::map<std::string, double>> MeasureRemoval() {
    const uint64_t before = DiskBytesOf(folder_);
    const auto start = BenchClock::now();
    RETURN_IF_ERROR(layout_.Remove(1));
    const uint64_t goal = before - std::min(before, bytes_ / 10 * 9);
    while (DiskBytesOf(folder_) > goal && SecondsSince(start) < 30) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    figures_["remove_ms"] = SecondsSince(start) * 1e3;
    return figures_;
  }

  DiskLayout& layout_;
  const std::string folder_;
  const Arguments& a_;
  const uint64_t bytes_;
  uint64_t seed_;
  std::vector<uint32_t> crcs_[2];
  std::map<std::string, double> figures_;
};

json AsJson(const std::vector<double>& values) {
  const Spread spread = SpreadOf(values);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

void Print(const json& report, const std::string& format) {
  if (format == "json") {
    std::cout << report.dump(1) << "\n";
    return;
  }
  std::printf(
      "raw: %s; %s a layout and round, %u rounds; publishes of %u blocks of 0.8 to 2 MB, "
      "%u readers; shares of raw of the same round: median (min..max)\n",
      report["raw_how"].get<std::string>().c_str(),
      FormatBytes(report["bytes"].get<uint64_t>()).c_str(), report["rounds"].get<unsigned>(),
      report["publish_blocks"].get<unsigned>(), report["readers"].get<unsigned>());
  const auto& raw = report["raw"];
  std::printf("%-16s write %.0f MB/s, read in order %.0f MB/s, random %.0f MB/s\n", "raw",
              raw["write"]["median"].get<double>() / 1e6, raw["read"]["median"].get<double>() / 1e6,
              raw["random"]["median"].get<double>() / 1e6);
  for (const json& row : report["layouts"]) {
    std::printf("%-16s", row["name"].get<std::string>().c_str());
    for (const char* const key : {"write", "read", "random"}) {
      const json& share = row[std::string(key) + "_share"];
      std::printf("  %s %3.0f %% (%.0f..%.0f)", key, 100 * share["median"].get<double>(),
                  100 * share["min"].get<double>(), 100 * share["max"].get<double>());
    }
    std::printf("  remove %.0f ms  open %.1f ms  written %.2fx\n",
                row["remove_ms"]["median"].get<double>(), row["open_ms"]["median"].get<double>(),
                row["amplification"]["median"].get<double>());
  }
}

using Figures = std::map<std::string, std::vector<double>>;

// raw is measured before and after each layout; its share is of their mean, so that what others do
// to the disk meanwhile meets both.
Status RunRounds(const Arguments& a, const std::string& folder, uint64_t bytes, RawDisk& raw,
                 Figures* raw_figures, std::map<std::string, Figures>* figures) {
  const auto measure_raw = [&]() -> Result<std::map<std::string, double>> {
    std::map<std::string, double> measured;
    ASSIGN_OR_RETURN(measured["write"], raw.Write());
    ASSIGN_OR_RETURN(measured["read"], raw.ReadInOrder());
    ASSIGN_OR_RETURN(measured["random"], raw.ReadAtRandom());
    for (const auto& [key, value] : measured) (*raw_figures)[key].push_back(value);
    return measured;
  };
  ASSIGN_OR_RETURN(auto before, measure_raw());
  for (uint32_t round = 0; round < a.rounds; ++round) {
    for (size_t i = 0; i < std::size(kLayouts); ++i) {
      const NamedLayout& named = kLayouts[(i + round) % std::size(kLayouts)];
      const std::string place = folder + "/" + std::to_string(i);
      std::map<std::string, double> measured;
      {
        const auto layout = named.make();
        Round run(*layout, place, a, bytes, 1000 * round + i);
        ASSIGN_OR_RETURN(measured, run.Run());
      }
      std::filesystem::remove_all(place);
      ASSIGN_OR_RETURN(const auto after, measure_raw());
      Figures& mine = (*figures)[named.name];
      for (const auto& [key, value] : measured) {
        mine[key].push_back(value);
        const auto ceiling = before.find(key);
        if (ceiling == before.end()) continue;
        mine[key + "_share"].push_back(2 * value / (ceiling->second + after.at(key)));
      }
      before = after;
    }
  }
  return OkStatus();
}

Status Bench(Arguments a) {
  ASSIGN_OR_RETURN(uint64_t total_bytes, ParseBytes(a.bytes));
  if (a.smoke) {
    a.rounds = 1;
    a.publish_blocks = 2;
    total_bytes = uint64_t{40} << 20;
  }
  std::string folder = a.folder + "/corpus-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return IoError("cannot make a folder in " + a.folder);
  const uint64_t bytes = total_bytes / a.rounds / (std::size(kLayouts) + 1);
  Figures raw_figures;
  std::map<std::string, Figures> figures;
  std::string how;
  const Status status = [&]() -> Status {
    RawDisk raw(folder, bytes);
    how = raw.how();
    return RunRounds(a, folder, bytes, raw, &raw_figures, &figures);
  }();
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  RETURN_IF_ERROR(status);
  json report = {{"command", "corpus-bench disk-tier"},
                 {"raw_how", how},
                 {"bytes", bytes},
                 {"rounds", a.rounds},
                 {"publish_blocks", a.publish_blocks},
                 {"readers", a.readers}};
  for (const auto& [key, values] : raw_figures) report["raw"][key] = AsJson(values);
  for (const NamedLayout& named : kLayouts) {
    json row = {{"name", named.name}};
    for (const auto& [key, values] : figures[named.name]) row[key] = AsJson(values);
    report["layouts"].push_back(row);
  }
  Print(report, a.format);
  return OkStatus();
}

}  // namespace

void AddDiskTierCommand(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("disk-tier", "layouts of blocks on a disk, beside raw I/O");
  command->add_option("--folder", a->folder, "on the disk to measure (the temporary folder)");
  command->add_option("--bytes", a->bytes, "written in all, over all layouts and rounds (4GiB)");
  command->add_option("--rounds", a->rounds, "interleaved rounds")->check(CLI::Range(1, 100));
  command->add_option("--publish-blocks", a->publish_blocks, "blocks made durable at a time")
      ->check(CLI::Range(1, 256));
  command->add_option("--readers", a->readers, "blocks read at a time")->check(CLI::Range(1, 64));
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
