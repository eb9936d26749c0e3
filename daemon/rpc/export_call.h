// daemon/rpc/export_call.h -- ExportCall: a bundle being sent, a piece for each ExportNext of the
// client, so that a slow client costs the daemon one block of memory and nothing else. A damaged
// block is computed again before it is sent.
#pragma once

#include <memory>
#include <string>

#include "daemon/rpc/services.h"
#include "daemon/rpc/stream_call.h"
#include "store/bundle_writer.h"

namespace corpusd {

class ExportCall : public StreamCall {
 public:
  ExportCall(const Services& services, std::shared_ptr<Call> call,
             std::function<void(uint64_t bytes)> on_taken);

 protected:
  Status Handle(v1::Request& request) override;
  void Stopped() override { writer_.reset(); }

 private:
  Status Begin(const std::string& name);
  Status SendPiece();
  // Puts the next record into record_. RETURNS false if there is none.
  Result<bool> NextRecord();
  void SendEnd();

  const Services& services_;
  std::string name_;
  std::unique_ptr<BundleWriter> writer_;
  std::string record_;
  size_t sent_bytes_ = 0;  // of record_
  bool ended_ = false;
};

}  // namespace corpusd
