#include "daemon/rpc/export_call.h"

#include <algorithm>

#include "daemon/log.h"

namespace corpusd {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

std::string ValueOf(const std::vector<IdentityField>& identity, std::string_view name) {
  for (const IdentityField& field : identity) {
    if (field.name == name) return field.value;
  }
  return "";
}

}  // namespace

ExportCall::ExportCall(const Services& services, std::shared_ptr<Call> call,
                       std::function<void(uint64_t bytes)> on_taken)
    : StreamCall(services.ingest, std::move(call), std::move(on_taken)), services_(services) {}

Status ExportCall::Handle(v1::Request& request) {
  if (request.has_export_begin()) return Begin(request.export_begin().name());
  if (!request.has_export_next() || writer_ == nullptr) {
    return InvalidArgumentError("an export takes a begin and then asks for pieces, nothing else");
  }
  return SendPiece();
}

Status ExportCall::Begin(const std::string& name) {
  if (!call().Begin()) return CancelledError("the call has ended");
  ASSIGN_OR_RETURN(const CorpusRecord record, services_.store.GetCorpus(name));
  ASSIGN_OR_RETURN(const CorpusShape shape,
                   services_.engine.ShapeOf(record.kv_format, record.segments));
  const ModelSummary& model = services_.engine.model();
  const bool of_this_model = ValueOf(record.identity, "weights") == model.digest;
  const auto open = [&] {
    return OpenExport(services_.store, name, of_this_model ? model.name : "", shape.block_tokens);
  };
  auto writer = open();
  if (writer.status().code() == StatusCode::kCorruption) {
    RETURN_IF_ERROR(services_.engine.Repair(name).status());
    writer = open();
  }
  RETURN_IF_ERROR(writer.status());
  name_ = name;
  writer_ = *std::move(writer);
  return OkStatus();
}

Result<bool> ExportCall::NextRecord() {
  record_.clear();
  sent_bytes_ = 0;
  auto more = writer_->Next(&record_);
  if (more.status().code() == StatusCode::kCorruption) {
    Log(LogLevel::kWarn, "export_repairs", {{"corpus", name_}, {"error", more.status().message()}});
    RETURN_IF_ERROR(services_.engine.Repair(name_).status());
    record_.clear();
    more = writer_->Next(&record_);
  }
  if (more.status().code() == StatusCode::kNotFound) {
    return Status(StatusCode::kAborted,
                  "corpus '" + name_ + "' was changed while it was exported: export it again");
  }
  return more;
}

Status ExportCall::SendPiece() {
  if (ended_) return OkStatus();  // clients ask ahead
  if (sent_bytes_ == record_.size()) {
    ASSIGN_OR_RETURN(const bool more, NextRecord());
    if (!more) {
      SendEnd();
      return OkStatus();
    }
  }
  v1::Response response;
  v1::ExportData* data = response.mutable_export_data();
  const size_t count = std::min(kPieceBytes, record_.size() - sent_bytes_);
  data->set_content(record_.substr(sent_bytes_, count));
  data->set_done_blocks(writer_->blocks());
  data->set_total_blocks(writer_->head().blocks);
  sent_bytes_ += count;
  call().Send(std::move(response));
  return OkStatus();
}

void ExportCall::SendEnd() {
  ended_ = true;
  Log(LogLevel::kInfo, "exported",
      {{"corpus", name_}, {"blocks", writer_->blocks()}, {"bytes", writer_->bytes()}});
  v1::Response response;
  v1::ExportReply* reply = response.mutable_export_reply();
  reply->set_blocks(writer_->blocks());
  reply->set_bytes(writer_->bytes());
  reply->set_sha256(writer_->sha256());
  call().Finish(std::move(response));
}

}  // namespace corpusd
