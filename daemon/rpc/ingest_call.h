// daemon/rpc/ingest_call.h -- IngestCall: a corpus being received: its pieces are queued by the I/O
// thread and tokenized in order on a worker of the ingest pool, one task at a time, so that a slow
// client holds no worker. The session stops reading its connection while too many bytes wait here;
// the text itself is never kept.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"

namespace corpusd {

class IngestCall : public std::enable_shared_from_this<IngestCall> {
 public:
  // on_taken: called with the bytes of a piece when it waits no more, from a worker. Nothing is
  // called after the last piece was taken.
  IngestCall(const Services& services, const Peer& peer, std::shared_ptr<Call> call,
             v1::IngestBegin begin, std::function<void(uint64_t bytes)> on_taken);

  // From the I/O thread; none of them blocks. Begin first, once.
  void Begin();
  void Data(v1::IngestData data);
  void End(const v1::IngestEnd& end);

 private:
  struct Piece {
    enum class Kind : uint8_t { kBegin, kData, kEnd } kind = Kind::kData;
    v1::IngestData data;
    uint64_t bytes = 0;
    uint64_t skipped_files = 0;  // of kEnd
  };

  void Post(Piece piece);
  void Drain();  // on a worker
  Status Handle(Piece& piece);
  Status OpenCorpus();
  Status OpenAppend();
  Status OpenUpdate();
  Status CheckRoots() const;
  Status AddPiece(const v1::IngestData& data);
  Status CloseCorpus();
  // Of the corpus's tenant.
  Status CheckQuota(uint64_t more_bytes) const;
  Result<CorpusRequest> NewCorpusRequest() const;
  Status CheckSize() const;

  const Services& services_;
  const Peer peer_;
  const std::shared_ptr<Call> call_;
  const v1::IngestBegin begin_;
  const std::function<void(uint64_t)> on_taken_;

  std::mutex mutex_;
  std::deque<Piece> pieces_;
  bool scheduled_ = false;

  // Below: only the task that runs touches them.
  std::optional<JobQueue::Place> place_;
  std::unique_ptr<CorpusTokenizer> tokenizer_;
  bool inside_source_ = false;
  uint64_t sources_ = 0;
  uint64_t skipped_inside_ = 0;  // files that the client found inside its sources and left out
};

}  // namespace corpusd
