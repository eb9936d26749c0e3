#include "daemon/rpc/import_call.h"

#include <string>

#include "daemon/access/tenant_quota.h"
#include "daemon/log.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr size_t kPieceBytesMax = size_t{1} << 20;
constexpr std::chrono::milliseconds kProgressInterval{100};

Status CheckTarget(const Services& services, const std::string& name) {
  RETURN_IF_ERROR(CheckCorpusName(name));
  const std::optional<JobRecord> job = services.jobs.ActiveJob(name);
  if (!job) return OkStatus();
  return NotReadyError("corpus '" + name + "' is being prefilled by job " +
                       std::to_string(job->id) + "; cancel it or import under another name");
}

}  // namespace

ImportCall::ImportCall(const Services& services, const Peer& peer, std::shared_ptr<Call> call,
                       std::function<void(uint64_t bytes)> on_taken)
    : StreamCall(services.ingest, std::move(call), std::move(on_taken)),
      services_(services),
      peer_(peer) {}

Status ImportCall::Handle(v1::Request& request) {
  switch (request.body_case()) {
    case v1::Request::kImportBegin:
      return Begin(request.import_begin());
    case v1::Request::kImportData:
      return Data(request.import_data());
    case v1::Request::kImportEnd:
      return End();
    default:
      return InvalidArgumentError("an import takes pieces and an end, nothing else");
  }
}

Status ImportCall::Begin(const v1::ImportBegin& begin) {
  // Not refused when the call has ended before a worker was free: what its client has sent is kept
  // then, too.
  RETURN_IF_ERROR(CheckMayImport(peer_));
  if (!begin.name().empty()) RETURN_IF_ERROR(CheckTarget(services_, begin.name()));
  const std::string tenant(TenantOf(begin.name()));
  importer_ = std::make_unique<BundleImporter>(
      services_.store,
      [this, tenant](const BundleHead& head) -> Result<CorpusShape> {
        ASSIGN_OR_RETURN(CorpusShape shape,
                         services_.engine.ShapeOf(head.kv_format, head.segments, tenant));
        RETURN_IF_ERROR(CheckTenantQuota(services_.store, tenant,
                                         services_.access.table()->QuotaOf(tenant),
                                         head.blocks * shape.block_bytes));
        return shape;
      },
      [this](const std::string& name) { return CheckTarget(services_, name); }, begin.name());
  return OkStatus();
}

Status ImportCall::Data(const v1::ImportData& data) {
  if (importer_ == nullptr) return InvalidArgumentError("a piece came before the import was begun");
  if (data.content().size() > kPieceBytesMax) {
    return InvalidArgumentError("a piece has at most " + std::to_string(kPieceBytesMax) + " bytes");
  }
  RETURN_IF_ERROR(importer_->Feed(std::as_bytes(std::span(data.content()))));
  TellProgress();
  return OkStatus();
}

void ImportCall::TellProgress() {
  const auto now = std::chrono::steady_clock::now();
  if (importer_->blocks_total() == 0 || now - told_at_ < kProgressInterval) return;
  told_at_ = now;
  v1::Response response;
  response.mutable_progress()->set_done(importer_->blocks_done());
  response.mutable_progress()->set_total(importer_->blocks_total());
  call().Send(std::move(response));
}

Status ImportCall::End() {
  if (importer_ == nullptr) return InvalidArgumentError("an import ended before it was begun");
  ASSIGN_OR_RETURN(const CorpusRecord record, importer_->Finish());
  Log(LogLevel::kInfo, "imported",
      {{"corpus", record.name},
       {"blocks", record.chain.size()},
       {"reused_blocks", importer_->blocks_reused()}});
  v1::Response response;
  v1::ImportReply* reply = response.mutable_import_reply();
  *reply->mutable_corpus() = DescribeCorpus(services_, record);
  reply->mutable_corpus()->clear_sources();
  reply->set_reused_blocks(importer_->blocks_reused());
  call().Finish(std::move(response));
  return OkStatus();
}

void ImportCall::Stopped() {
  if (importer_ != nullptr) importer_->Abandon();
}

}  // namespace corpusd
