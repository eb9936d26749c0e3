// engine/ranks/group_transport.h -- some ranks of a job as a job of their own, over the same
// connections: rows and columns of a grid. Two ranks may share one group of those that are in use
// at a time, so that messages keep their order. Collectives are made of messages, in memory of the
// host; devices join a job of NCCL's for each group instead. An error or an Abort ends the whole
// job. Threads as of the transport below.
#pragma once

#include <vector>

#include "engine/ranks/transport.h"

namespace corpusd {

class GroupTransport final : public Transport {
 public:
  // members: ranks of `whole`, which must outlive this; its own rank is one of them.
  GroupTransport(Transport& whole, std::vector<uint32_t> members);

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return static_cast<uint32_t>(members_.size()); }
  std::string NameOf(uint32_t rank) const override { return whole_.NameOf(members_[rank]); }
  TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) override {
    return whole_.Send(members_[to], bytes);
  }
  TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) override {
    return whole_.Receive(members_[from], bytes);
  }
  void Start() override { whole_.Start(); }
  void Abort(const Status& why) override { whole_.Abort(why); }

 private:
  Transport& whole_;
  const std::vector<uint32_t> members_;
  uint32_t rank_ = 0;
};

// A job's ranks in a grid: those that follow one another share the weights, every tensor_ranks-th
// the text. REQUIRES: tensor_ranks divides the job's size.
std::vector<uint32_t> TensorGroupOf(const Transport& whole, uint32_t tensor_ranks);
std::vector<uint32_t> TextGroupOf(const Transport& whole, uint32_t tensor_ranks);

}  // namespace corpusd
