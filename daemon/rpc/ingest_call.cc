#include "daemon/rpc/ingest_call.h"

#include <exception>
#include <string>
#include <utility>

#include "daemon/access/tenant_quota.h"
#include "daemon/log.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/retention_handler.h"
#include "engine/segment/companions.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr size_t kPieceBytesMax = size_t{1} << 20;
constexpr size_t kPathBytesMax = 4096;
constexpr uint64_t kSourcesMax = uint64_t{1} << 20;
// A corpus longer than the model's context is counted to its end, so that the refusal can say how
// long it is; beyond this many contexts (4 bytes a token) not even that.
constexpr uint64_t kCountedContexts = 64;
constexpr int kRootsMax = 1024;
constexpr uint64_t kRootBytesMax = uint64_t{1} << 18;

}  // namespace

IngestCall::IngestCall(const Services& services, const Peer& peer, std::shared_ptr<Call> call,
                       v1::IngestBegin begin, std::function<void(uint64_t bytes)> on_taken)
    : services_(services),
      peer_(peer),
      call_(std::move(call)),
      begin_(std::move(begin)),
      on_taken_(std::move(on_taken)) {}

void IngestCall::Begin() { Post({Piece::Kind::kBegin, {}, 0}); }

void IngestCall::Data(v1::IngestData data) {
  const uint64_t bytes = data.content().size() + data.path().size();
  Post({Piece::Kind::kData, std::move(data), bytes});
}

void IngestCall::End(const v1::IngestEnd& end) {
  Post({Piece::Kind::kEnd, {}, 0, end.skipped_files()});
}

void IngestCall::Post(Piece piece) {
  const uint64_t bytes = piece.bytes;
  {
    std::lock_guard lock(mutex_);
    pieces_.push_back(std::move(piece));
    if (std::exchange(scheduled_, true)) return;
  }
  if (services_.ingest.Submit([self = shared_from_this()] { self->Drain(); })) return;
  {
    std::lock_guard lock(mutex_);
    pieces_.clear();
    scheduled_ = false;
  }
  on_taken_(bytes);
  call_->Fail(UnavailableError("too many corpora are being received; try again later"));
}

void IngestCall::Drain() {
  for (;;) {
    Piece piece;
    {
      std::lock_guard lock(mutex_);
      if (pieces_.empty()) {
        scheduled_ = false;
        return;
      }
      piece = std::move(pieces_.front());
      pieces_.pop_front();
    }
    const bool dead = call_->ended() || call_->stop_token().stop_requested();
    Status status = CancelledError("ingest of '" + begin_.name() + "' was cancelled");
    try {
      if (!dead) status = Handle(piece);
    } catch (const std::exception& error) {  // out of memory: the root of a worker's task
      status = InternalError(std::string("the ingest failed: ") + error.what());
    }
    if (!status.ok()) {
      tokenizer_.reset();
      place_.reset();
      call_->Fail(status);
    }
    on_taken_(piece.bytes);
  }
}

Status IngestCall::Handle(Piece& piece) {
  switch (piece.kind) {
    case Piece::Kind::kBegin:
      return OpenCorpus();
    case Piece::Kind::kData:
      return AddPiece(piece.data);
    case Piece::Kind::kEnd:
      skipped_inside_ = piece.skipped_files;
      return CloseCorpus();
  }
  return InternalError("unknown piece");
}

Status IngestCall::OpenCorpus() {
  if (!call_->Begin()) return CancelledError("the call has ended");
  RETURN_IF_ERROR(CheckCorpusName(begin_.name()));
  if (!begin_.mode().empty() && begin_.mode() != "auto" && begin_.mode() != "exact" &&
      begin_.mode() != "segmented") {
    return InvalidArgumentError("mode '" + begin_.mode() + "' is none of auto, exact, segmented");
  }
  // Now, not after gigabytes of text have come.
  RETURN_IF_ERROR(services_.store.write_gate().Admit("ingest of '" + begin_.name() + "'"));
  ASSIGN_OR_RETURN(JobQueue::Place place, services_.jobs.Reserve());
  place_.emplace(std::move(place));
  RETURN_IF_ERROR(CheckRoots());
  if (begin_.append()) return OpenAppend();
  if (begin_.update()) return OpenUpdate();
  const Result<CorpusRecord> existing = services_.store.GetCorpus(begin_.name());
  if (existing.ok()) {
    return AlreadyExistsError("corpus '" + begin_.name() +
                              "' exists already; append to it, remove it or choose another name");
  }
  if (existing.status().code() != StatusCode::kNotFound) return existing.status();
  ASSIGN_OR_RETURN(tokenizer_, services_.engine.NewCorpusTokenizer(begin_.preamble(), false, 0));
  return OkStatus();
}

Status IngestCall::OpenAppend() {
  ASSIGN_OR_RETURN(const CorpusRecord record, services_.store.GetCorpus(begin_.name()));
  const std::optional<JobRecord> job = services_.jobs.ActiveJob(begin_.name());
  if (job) {
    return NotReadyError("corpus '" + begin_.name() + "' is still being prefilled by job " +
                         std::to_string(job->id) + "; append when it is ready");
  }
  ASSIGN_OR_RETURN(tokenizer_, services_.engine.NewCorpusTokenizer("", true, record.tokens));
  return OkStatus();
}

Status IngestCall::OpenUpdate() {
  ASSIGN_OR_RETURN(const CorpusRecord record, services_.store.GetCorpus(begin_.name()));
  for (const std::string& name : {record.name, UpdateName(record.name)}) {
    const std::optional<JobRecord> job = services_.jobs.ActiveJob(name);
    if (!job) continue;
    return NotReadyError("corpus '" + record.name + "' is being prefilled by job " +
                         std::to_string(job->id) + "; update it when that is done");
  }
  ASSIGN_OR_RETURN(tokenizer_, services_.engine.NewCorpusTokenizer("", false, 0));
  return OkStatus();
}

Status IngestCall::CheckRoots() const {
  uint64_t bytes = 0;
  for (const std::string& root : begin_.roots()) bytes += root.size();
  if (bytes <= kRootBytesMax && begin_.roots_size() <= kRootsMax) return OkStatus();
  return InvalidArgumentError("a corpus keeps at most " + std::to_string(kRootsMax) + " roots of " +
                              std::to_string(kRootBytesMax) + " bytes together");
}

Status IngestCall::CheckSize() const {
  const ModelSummary& model = services_.engine.model();
  if (begin_.mode() != "exact" && !begin_.append()) {
    if (tokenizer_->tokens() <= model.segmented_tokens_max) return OkStatus();
    return InvalidArgumentError("corpus '" + begin_.name() + "' has more than " +
                                std::to_string(model.segmented_tokens_max) +
                                " tokens, the most that a corpus may have");
  }
  const uint64_t limit = model.context_tokens;
  if (tokenizer_->tokens() / kCountedContexts <= limit) return OkStatus();
  return InvalidArgumentError("corpus '" + begin_.name() + "' has more than " +
                              std::to_string(tokenizer_->tokens()) +
                              " tokens, and the model's context is " + std::to_string(limit));
}

Status IngestCall::AddPiece(const v1::IngestData& data) {
  if (tokenizer_ == nullptr)
    return InvalidArgumentError("a piece came before the corpus was begun");
  if (data.content().size() > kPieceBytesMax || data.path().size() > kPathBytesMax) {
    return InvalidArgumentError("a piece has at most " + std::to_string(kPieceBytesMax) +
                                " bytes and a path at most " + std::to_string(kPathBytesMax));
  }
  if (!inside_source_) {
    if (data.path().empty()) return InvalidArgumentError("a source begins without its path");
    if (++sources_ > kSourcesMax) {
      return InvalidArgumentError("a corpus has at most " + std::to_string(kSourcesMax) +
                                  " sources");
    }
    tokenizer_->BeginSource(data.path());
    inside_source_ = true;
  } else if (!data.path().empty()) {
    return InvalidArgumentError("source '" + data.path() + "' begins before the last one ended");
  }
  tokenizer_->Append(data.content());
  if (data.last()) {
    tokenizer_->EndSource();
    inside_source_ = false;
  }
  return CheckSize();
}

Result<CorpusRequest> IngestCall::NewCorpusRequest() const {
  CorpusRequest request;
  request.name = begin_.name();
  request.mode = begin_.mode().empty() ? "auto" : begin_.mode();
  request.kv_format = begin_.kv_format();
  request.preamble = begin_.preamble();
  request.skipped_files = begin_.skipped_files();
  request.roots.assign(begin_.roots().begin(), begin_.roots().end());
  request.update = begin_.update();
  request.expires_at_ms = ExpiryOf(services_, begin_.ttl_ms());
  if (!begin_.priority().empty()) {
    ASSIGN_OR_RETURN(request.priority, ParsePriority(begin_.priority()));
  }
  if (begin_.pin()) {
    request.pin = CorpusPin{};
    request.pin->owner = OwnerName(peer_);
    request.pin->created_at_ms = services_.now_ms();
  }
  return request;
}

Status IngestCall::CheckQuota(uint64_t more_bytes) const {
  const std::string_view tenant = TenantOf(begin_.name());
  return CheckTenantQuota(services_.store, tenant, services_.access.table()->QuotaOf(tenant),
                          more_bytes);
}

Status IngestCall::CloseCorpus() {
  if (tokenizer_ == nullptr) return InvalidArgumentError("a corpus ended before it was begun");
  if (inside_source_) return InvalidArgumentError("the last source did not end");
  Result<CorpusRecord> record = InternalError("not made");
  if (begin_.append() && sources_ == 0) {
    // Nothing to add: go on with a prefill that was cancelled or has failed.
    record = services_.store.GetCorpus(begin_.name());
    RETURN_IF_ERROR(record.status());
    if (record->state == CorpusState::kReady) {
      return InvalidArgumentError("nothing to append to '" + begin_.name() + "', which is ready");
    }
  } else if (begin_.append()) {
    record = services_.store.GetCorpus(begin_.name());
    RETURN_IF_ERROR(record.status());
    ASSIGN_OR_RETURN(const CorpusShape shape,
                     services_.engine.ShapeOf(record->kv_format, record->segments));
    const uint64_t blocks = tokenizer_->tokens() / shape.block_tokens + 1;
    RETURN_IF_ERROR(CheckQuota(blocks * record->block_bytes));
    record = services_.engine.AppendCorpus(begin_.name(), std::move(tokenizer_));
  } else {
    if (sources_ == 0) return InvalidArgumentError("a corpus needs at least one source");
    ASSIGN_OR_RETURN(CorpusRequest request, NewCorpusRequest());
    request.skipped_files += skipped_inside_;
    record = services_.engine.CreateCorpus(request, std::move(tokenizer_));
    RETURN_IF_ERROR(record.status());
    // Before anything is computed, and with what all of it will take.
    if (const Status room = CheckQuota(0); !room.ok()) {
      RETURN_IF_ERROR(services_.store.RemoveCorpus(record->name));
      return room;
    }
  }
  RETURN_IF_ERROR(record.status());
  const JobRecord job = services_.jobs.SubmitPrefill(record->name, *std::move(place_));
  place_.reset();
  Log(LogLevel::kInfo, "ingest",
      {{"request", call_->label()},
       {"corpus", record->name},
       {"append", begin_.append()},
       {"update", begin_.update()},
       {"tokens", record->tokens},
       {"sources", record->sources.size()},
       {"job", job.id}});
  v1::Response response;
  *response.mutable_ingest()->mutable_job() = ToMessage(job);
  *response.mutable_ingest()->mutable_corpus() = DescribeCorpus(services_, *record);
  response.mutable_ingest()->mutable_corpus()->clear_sources();
  call_->Finish(std::move(response));
  return OkStatus();
}

}  // namespace corpusd
