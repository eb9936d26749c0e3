#include "engine/ranks/transport.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace corpusd {

Status WaitAll(std::vector<TransferPtr>& transfers) {
  Status first;
  for (const TransferPtr& transfer : transfers) {
    Status status = transfer->Wait();
    if (first.ok()) first = std::move(status);
  }
  transfers.clear();
  return first;
}

namespace {

class SeveralTransfers final : public Transfer {
 public:
  std::vector<TransferPtr> all;
  Status Wait() override { return WaitAll(all); }
};

}  // namespace

TransferPtr Transport::Gather(std::span<std::byte> all) {
  const size_t each = all.size() / size();
  CHECK(all.size() == each * size()) << all.size();
  auto gathered = std::make_unique<SeveralTransfers>();
  for (uint32_t i = 1; i < size(); ++i) {
    const uint32_t to = (rank() + i) % size(), from = (rank() + size() - i) % size();
    gathered->all.push_back(Send(to, all.subspan(rank() * each, each)));
    gathered->all.push_back(Receive(from, all.subspan(from * each, each)));
  }
  return gathered;
}

// A binomial tree: log2(size) steps.
Status Transport::Broadcast(uint32_t root, std::span<std::byte> bytes) {
  CHECK(root < size()) << root;
  const uint32_t place = (rank() + size() - root) % size();  // the root is at 0
  const auto rank_at = [&](uint32_t p) { return (p + root) % size(); };
  uint32_t step = std::bit_floor(place);  // place received from place - step
  if (place > 0) RETURN_IF_ERROR(Receive(rank_at(place - step), bytes)->Wait());
  std::vector<TransferPtr> sends;
  for (step = place == 0 ? 1 : 2 * step; place + step < size(); step *= 2) {
    sends.push_back(Send(rank_at(place + step), bytes));
  }
  return WaitAll(sends);
}

Status Transport::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  CHECK(all.size() == mine.size() * size()) << all.size();
  std::vector<TransferPtr> transfers;
  for (uint32_t i = 1; i < size(); ++i) {
    const uint32_t from = (rank() + size() - i) % size();
    transfers.push_back(Send((rank() + i) % size(), mine));
    transfers.push_back(Receive(from, all.subspan(from * mine.size(), mine.size())));
  }
  std::memcpy(all.data() + rank() * mine.size(), mine.data(), mine.size());
  return WaitAll(transfers);
}

// Every rank adds up one slice of all ranks' values, then the slices are gathered: each number
// travels 2 (size - 1) / size times.
Status Transport::AllReduceSum(std::span<float> values) {
  const size_t slice = (values.size() + size() - 1) / size();
  const auto slice_of = [&](uint32_t r) {
    const size_t first = std::min(values.size(), r * slice);
    return values.subspan(first, std::min(slice, values.size() - first));
  };
  const std::span<float> mine = slice_of(rank());
  std::vector<float> theirs(mine.size() * size());
  const auto of = [&](uint32_t r) {
    return std::span(theirs).subspan(r * mine.size(), mine.size());
  };
  std::vector<TransferPtr> transfers;
  for (uint32_t i = 1; i < size(); ++i) {
    const uint32_t to = (rank() + i) % size();
    const uint32_t from = (rank() + size() - i) % size();
    transfers.push_back(Send(to, std::as_bytes(slice_of(to))));
    transfers.push_back(Receive(from, std::as_writable_bytes(of(from))));
  }
  std::copy(mine.begin(), mine.end(), of(rank()).begin());
  RETURN_IF_ERROR(WaitAll(transfers));
  for (size_t i = 0; i < mine.size(); ++i) {
    float sum = 0;
    for (uint32_t r = 0; r < size(); ++r) sum += of(r)[i];
    mine[i] = sum;
  }
  for (uint32_t i = 1; i < size(); ++i) {
    const uint32_t from = (rank() + size() - i) % size();
    transfers.push_back(Send((rank() + i) % size(), std::as_bytes(mine)));
    transfers.push_back(Receive(from, std::as_writable_bytes(slice_of(from))));
  }
  return WaitAll(transfers);
}

Status Transport::Barrier() {
  const std::byte mine{};
  std::vector<std::byte> all(size());
  return AllGather({&mine, 1}, all);
}

}  // namespace corpusd
