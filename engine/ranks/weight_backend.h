// engine/ranks/weight_backend.h -- a rank's device as a Backend that has a part of every weight and
// asks other ranks (weight_rank.h) for the products of theirs: whatever is computed over it has the
// bits of one device with all weights. Texts, pages and attention are `local`'s, which may be a
// RankedBackend: then ranks that each lead such a group share a text. Inputs travel to all, outputs
// come back. Once one of the others is lost, Synchronize, and so Model::Forward, says which, until
// Join. One caller at a time, as of any Backend; status and lost from any thread.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/ranks/tcp_socket.h"
#include "engine/ranks/weight_message.h"
#include "engine/ranks/weight_parts.h"

namespace corpusd {

class WeightBackend final : public PartBackend {
 public:
  // local must outlive this. timeout: for an answer. Nobody is there yet.
  WeightBackend(Backend& local, uint32_t ranks, std::chrono::milliseconds timeout);

  // One of the other ranks, which has been greeted.
  struct Peer {
    Socket socket;
    std::string name;  // "rank 1 (10.0.0.3:9000)"
  };
  // Ranks 1, 2 ... in the place of those before; none: they are let go. REQUIRES: nobody computes.
  void Join(std::vector<Peer> peers);
  // Ok: all are there, as far as is known.
  Status status() const;
  // Finds out whether one has closed its connection.
  Status Look();
  uint64_t sent_bytes() const { return sent_bytes_; }

  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  void MixExperts(MatrixView out, const ExpertInput& input) override;
  Status Synchronize() override;

 private:
  bool ok() const { return status().ok(); }
  void Fail(uint32_t rank, const Status& why);
  bool Send(uint32_t rank, std::span<const std::byte> bytes);
  bool SendMatrix(uint32_t rank, MatrixView m);
  bool Receive(uint32_t rank, MatrixView m);  // contiguous
  // Memory for a matrix; none after an error.
  MatrixView Lend(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint64_t cols);
  // Columns of `out` that a rank has, from or to one matrix of them.
  void Scatter(MatrixView out, const PartWeight& part, uint32_t rank, MatrixView from);
  void Gather(MatrixView out, const PartWeight& part, uint32_t rank, MatrixView to);
  void MultiplyOwn(MatrixView out, MatrixView x, const PartWeight& part, bool accumulate);

  const std::chrono::milliseconds timeout_;
  std::vector<Peer> peers_;  // [ranks - 1], or none
  std::unique_ptr<Buffer> inputs_, slices_;
  uint64_t sent_bytes_ = 0;
  mutable std::mutex mutex_;  // of what follows
  Status status_;
};

}  // namespace corpusd
