#include "tests/bench/raw_disk.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "store/direct_file.h"
#include "tests/bench/bench_command.h"

namespace corpusd {
namespace {

constexpr unsigned kInFlight = 8;
constexpr uint64_t kPieceBytes = uint64_t{1} << 20;

Result<std::string> OutputOf(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return IoError("cannot run " + command);
  std::string output;
  char part[4096];
  for (size_t got = 0; (got = fread(part, 1, sizeof part, pipe)) > 0;) output.append(part, got);
  if (pclose(pipe) != 0) return IoError("failed: " + command + "\n" + output);
  return output;
}

}  // namespace

void FillRandom(uint64_t seed, void* memory, uint64_t bytes) {
  uint64_t a = seed * 0x9e3779b97f4a7c15u + 1;  // xorshift64*
  auto* const words = static_cast<uint64_t*>(memory);
  for (uint64_t i = 0; i < bytes / 8; ++i) {
    a ^= a >> 12;
    a ^= a << 25;
    a ^= a >> 27;
    words[i] = a * 0x2545f4914f6cdd1du;
  }
}

RawDisk::RawDisk(std::string folder, uint64_t bytes)
    : path_(std::move(folder) + "/raw"),
      bytes_(std::max(bytes / kPieceBytes * kPieceBytes, kInFlight * kPieceBytes)) {
  fio_ = OutputOf("fio --version 2>/dev/null").ok();
  how_ = fio_ ? "fio, libaio, 8 x 1 MiB in flight, O_DIRECT"
              : "our own loop (fio is not installed), 8 threads of 1 MiB, O_DIRECT";
}

RawDisk::~RawDisk() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

Result<double> RawDisk::RunFio(Work work) const {
  const std::string kind = work == Work::kWrite  ? "write"
                           : work == Work::kRead ? "read"
                                                 : "randread";
  ASSIGN_OR_RETURN(const std::string output,
                   OutputOf("fio --name=raw --filename='" + path_ + "' --rw=" + kind +
                            " --ioengine=libaio --iodepth=8 --bs=1M --direct=1 --end_fsync=1 "
                            "--refill_buffers --randrepeat=0 --output-format=json --size=" +
                            std::to_string(bytes_) + " 2>/dev/null"));
  const auto report = nlohmann::json::parse(output.substr(output.find('{')), nullptr, false);
  if (report.is_discarded()) return IoError("fio printed no report");
  const auto& side = report["jobs"][0][work == Work::kWrite ? "write" : "read"];
  double seconds = side.value("runtime", 0.0) / 1000;
  if (work == Work::kWrite) {  // the closing sync is not in fio's bandwidth
    seconds = std::max(seconds, report["jobs"][0].value("job_runtime", 0.0) / 1000);
  }
  return static_cast<double>(bytes_) / std::max(seconds, 1e-3);
}

Result<double> RawDisk::RunLoop(Work work) const {
  std::error_code ignored;
  if (work == Work::kWrite) std::filesystem::remove(path_, ignored);
  auto opened = work == Work::kWrite ? DirectFile::Create(path_) : DirectFile::Open(path_);
  if (!opened.ok()) return opened.status();
  DirectFile& file = **opened;
  std::vector<uint64_t> pieces(bytes_ / kPieceBytes);
  std::iota(pieces.begin(), pieces.end(), 0);
  if (work == Work::kRandomRead) std::shuffle(pieces.begin(), pieces.end(), std::mt19937_64(1));
  std::vector<PageBuffer> buffers;
  for (unsigned t = 0; t < kInFlight; ++t) {
    buffers.emplace_back(PagesOf(kPieceBytes));
    FillRandom(t + 1, buffers.back().data(), kPieceBytes);
  }
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto start = BenchClock::now();
  const auto run = [&](unsigned t) {
    for (size_t i = next.fetch_add(1); i < pieces.size(); i = next.fetch_add(1)) {
      const iovec part{buffers[t].data(), kPieceBytes};
      const uint64_t offset = pieces[i] * kPieceBytes;
      if (work == Work::kWrite) {
        FillRandom(i + 1, part.iov_base, kPieceBytes);
        if (!file.Write(offset, {&part, 1}).ok()) failed = true;
      } else if (!file.Read(offset, {&part, 1}).ok()) {
        failed = true;
      }
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < kInFlight; ++t) threads.emplace_back(run, t);
  threads.clear();
  if (work == Work::kWrite) RETURN_IF_ERROR(file.Sync());
  if (failed) return IoError("direct I/O on " + path_ + " failed");
  return static_cast<double>(bytes_) / SecondsSince(start);
}

Result<double> RawDisk::Run(Work work) const { return fio_ ? RunFio(work) : RunLoop(work); }
Result<double> RawDisk::Write() { return Run(Work::kWrite); }
Result<double> RawDisk::ReadInOrder() { return Run(Work::kRead); }
Result<double> RawDisk::ReadAtRandom() { return Run(Work::kRandomRead); }

}  // namespace corpusd
