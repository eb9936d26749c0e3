// NCCL between two devices: what arrives, sums, and the errors. Skipped where there is one device.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "engine/ranks/nccl_transport.h"

namespace corpusd {
namespace {

// Memory of a device with what the host says.
class DeviceFloats {
 public:
  explicit DeviceFloats(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(float)), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0xff, count * sizeof(float)), cudaSuccess);
  }
  explicit DeviceFloats(const std::vector<float>& from) : DeviceFloats(from.size()) {
    EXPECT_EQ(cudaMemcpy(data_, from.data(), count_ * sizeof(float), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceFloats() { (void)cudaFree(data_); }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;

  std::span<float> span() { return {static_cast<float*>(data_), count_}; }
  std::span<std::byte> bytes() { return std::as_writable_bytes(span()); }
  std::vector<float> Read() {
    std::vector<float> out(count_);
    EXPECT_EQ(cudaMemcpy(out.data(), data_, count_ * sizeof(float), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return out;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

std::vector<float> Pattern(size_t count, uint32_t seed) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>((i * 7 + seed * 13) % 1024);
  return out;
}

void RunDevices(std::chrono::milliseconds timeout, const std::function<void(Transport&)>& body) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 2) GTEST_SKIP() << devices;
  const auto id = MakeNcclJobId();
  ASSERT_TRUE(id.ok()) << id.status().ToString();
  std::vector<std::jthread> threads;
  for (uint32_t r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      auto transport = JoinNcclJob({*id, r, 2, static_cast<int>(r), timeout});
      ASSERT_TRUE(transport.ok()) << transport.status().ToString();
      body(**transport);
    });
  }
}

TEST(NcclTransportTest, MessagesBothWaysArriveInOrder) {
  RunDevices(kTransferTimeout, [](Transport& transport) {
    const uint32_t other = 1 - transport.rank();
    for (const size_t count : {size_t{5}, size_t{40} << 20}) {
      DeviceFloats first(Pattern(count, transport.rank())),
          second(Pattern(3, transport.rank() + 9));
      DeviceFloats got_first(count), got_second(3);
      std::vector<TransferPtr> transfers;
      transfers.push_back(transport.Send(other, first.bytes()));
      transfers.push_back(transport.Send(other, second.bytes()));
      transfers.push_back(transport.Receive(other, got_first.bytes()));
      transfers.push_back(transport.Receive(other, got_second.bytes()));
      transport.Start();
      const Status status = WaitAll(transfers);
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(got_first.Read() == Pattern(count, other));
      EXPECT_TRUE(got_second.Read() == Pattern(3, other + 9));
    }
  });
}

TEST(NcclTransportTest, CollectivesGiveBothTheSame) {
  RunDevices(kTransferTimeout, [](Transport& transport) {
    DeviceFloats sum(Pattern(1000, transport.rank()));
    ASSERT_TRUE(transport.AllReduceSum(sum.span()).ok());
    auto expected = Pattern(1000, 0);
    const auto more = Pattern(1000, 1);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += more[i];
    EXPECT_EQ(sum.Read(), expected);
    DeviceFloats mine(Pattern(10, transport.rank() + 3)), all(20);
    ASSERT_TRUE(transport.AllGather(mine.bytes(), all.bytes()).ok());
    auto both = Pattern(10, 3);
    const auto second = Pattern(10, 4);
    both.insert(both.end(), second.begin(), second.end());
    EXPECT_EQ(all.Read(), both);
    ASSERT_TRUE(transport.Broadcast(1, mine.bytes()).ok());
    EXPECT_EQ(mine.Read(), second);
    EXPECT_TRUE(transport.Barrier().ok());
  });
}

// A rank of the next test, in a process of its own, that dies after a barrier.
TEST(NcclTransportTest, DISABLED_RankThatDies) {
  const char* const hex = std::getenv("CORPUSD_TEST_NCCL_ID");
  ASSERT_NE(hex, nullptr);
  NcclJobId id;
  for (size_t i = 0; i < id.size(); ++i) {
    id[i] = static_cast<char>(std::stoi(std::string(hex + 2 * i, 2), nullptr, 16));
  }
  auto transport = JoinNcclJob({id, 1, 2, 1, kTransferTimeout});
  ASSERT_TRUE(transport.ok()) << transport.status().ToString();
  EXPECT_TRUE((*transport)->Barrier().ok());
  _exit(0);
}

TEST(NcclTransportTest, ARankThatDiesIsNamedAndEndsTheJob) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 2) GTEST_SKIP() << devices;
  const auto id = MakeNcclJobId();
  ASSERT_TRUE(id.ok()) << id.status().ToString();
  std::string hex;
  for (const char byte : *id) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[(byte >> 4) & 15];
    hex += kDigits[byte & 15];
  }
  setenv("CORPUSD_TEST_NCCL_ID", hex.c_str(), 1);
  char program[] = "/proc/self/exe";
  char also[] = "--gtest_also_run_disabled_tests";
  char only[] = "--gtest_filter=*DISABLED_RankThatDies";
  char* const arguments[] = {program, also, only, nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, program, nullptr, nullptr, arguments, environ), 0);
  {
    auto transport = JoinNcclJob({*id, 0, 2, 0, std::chrono::milliseconds(3000)});
    ASSERT_TRUE(transport.ok()) << transport.status().ToString();
    EXPECT_TRUE((*transport)->Barrier().ok());
    int ended = 0;
    ASSERT_EQ(waitpid(child, &ended, 0), child);
    EXPECT_EQ(ended, 0);
    DeviceFloats got(16);
    const Status status = (*transport)->Receive(1, got.bytes())->Wait();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find("rank 1 of 2"), std::string::npos) << status.ToString();
    EXPECT_FALSE((*transport)->Receive(1, got.bytes())->Wait().ok());
  }
}

}  // namespace
}  // namespace corpusd
