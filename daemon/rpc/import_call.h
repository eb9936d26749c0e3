// daemon/rpc/import_call.h -- ImportCall: a bundle being received. The client sends the file as it
// is; everything in it is checked here. Blocks are published as they come, so that a transfer that
// breaks off, at whatever moment, is gone on with by the next one.
#pragma once

#include <chrono>
#include <memory>

#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"
#include "daemon/rpc/stream_call.h"
#include "store/bundle_import.h"

namespace corpusd {

class ImportCall : public StreamCall {
 public:
  // Refused unless the peer is an admin.
  ImportCall(const Services& services, const Peer& peer, std::shared_ptr<Call> call,
             std::function<void(uint64_t bytes)> on_taken);

 protected:
  Status Handle(v1::Request& request) override;
  void Stopped() override;

 private:
  Status Begin(const v1::ImportBegin& begin);
  Status Data(const v1::ImportData& data);
  Status End();
  void TellProgress();

  const Services& services_;
  const Peer peer_;
  std::unique_ptr<BundleImporter> importer_;
  std::chrono::steady_clock::time_point told_at_{};
};

}  // namespace corpusd
