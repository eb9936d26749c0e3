// engine/ranks/transport.h -- how the ranks of one job (processes or threads, each with a device)
// exchange bytes. Messages from one rank to another are received in the order they were sent and
// have the size that the receiver expects; transfers go on while the ranks compute. A rank that is
// lost, a call to Abort and a time-out end the job everywhere: every transfer then returns that one
// error, which names the rank. Not a network protocol for strangers: ranks trust each other. One
// thread per Transport, but Abort.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

class DeviceLink;  // engine/backend/tensor_ops.h

// How long a transfer is waited for before the job is given up.
inline constexpr std::chrono::milliseconds kTransferTimeout{60'000};

// A message under way. Its bytes belong to the transport until Wait has returned; after an error
// nothing touches them any more.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // kUnavailable names the rank that was lost, kAborted who gave up and why, kDeadlineExceeded whom
  // was waited for.
  virtual Status Wait() = 0;
};
using TransferPtr = std::unique_ptr<Transfer>;

// Waits for all of them, and returns the first error.
Status WaitAll(std::vector<TransferPtr>& transfers);

class Transport {
 public:
  virtual ~Transport() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;
  // "rank 2 of 4 (10.0.0.3:9000)"
  virtual std::string NameOf(uint32_t rank) const = 0;

  // REQUIRES: another rank.
  virtual TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) = 0;
  virtual TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) = 0;
  // The parts of all ranks to all; this one's lies in its place of [size][equal bytes] already. All
  // ranks call alike. REQUIRES: several ranks.
  virtual TransferPtr Gather(std::span<std::byte> all);
  // What was posted before may begin now: some transports start a group of transfers at once. Wait
  // does the same.
  virtual void Start() {}
  // From now on transfers are done in the order of a device's stream: what was put there before is
  // what they send, what is put there later sees what they received, and nobody need wait for
  // either. Null: beside what the device computes again. RETURNS false where memory is the host's.
  virtual bool RunOn(void* stream) {
    (void)stream;
    return false;
  }
  // The same ranks' devices as TensorOps wants them; null: there is no such way. Not beside
  // transfers.
  virtual DeviceLink* link() { return nullptr; }
  // Ends the job for every rank that still waits for this one. Any thread.
  virtual void Abort(const Status& why) = 0;
  // Called once, on any thread, when the job has ended by an error or an Abort here or elsewhere;
  // at once if it has. It must not call this transport. Empty: nobody is told any more.
  virtual void OnEnd(std::function<void(const Status& why)> /*told*/) {}

  // What all ranks call alike; each is over when it returns. The root's bytes to all.
  virtual Status Broadcast(uint32_t root, std::span<std::byte> bytes);
  // all: [size][bytes of mine], by rank.
  virtual Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all);
  // The sums: the same bits on every rank; where memory is the host's, added in the order of the
  // ranks.
  virtual Status AllReduceSum(std::span<float> values);
  virtual Status Barrier();
};

}  // namespace corpusd
