// CorpusClient's two verbs on bundles: whole corpora as files, streamed either way in the memory of
// a few pieces.
#include <algorithm>
#include <optional>
#include <utility>

#include "client/corpus_client.h"
#include "client/unix_channel.h"
#include "client/wire/utf8.h"

namespace corpusd {
namespace {

// Pieces asked for ahead, so that the daemon reads while this side writes.
constexpr int kPiecesAhead = 4;
constexpr size_t kPieceBytes = size_t{256} << 10;

ClientError Unexpected(const char* verb) {
  return {
      kClientProtocol, "protocol",
      std::string("corpusd answered '") + verb + "' with something else; are the versions equal?"};
}

ClientError FromWire(const v1::Error& error) {
  return {error.code(), error.code_text(), error.message()};
}

}  // namespace

ClientResult<v1::ExportReply> CorpusClient::Export(
    std::string_view name, const std::function<bool(const v1::ExportData& piece)>& on_piece) {
  v1::Request begin;
  begin.mutable_export_begin()->set_name(ToUtf8(name));
  auto call = Start(std::move(begin));
  if (!call.ok()) return call.error();
  v1::Request next;
  next.set_id(call->id);
  next.mutable_export_next();
  for (int ahead = 0; ahead < kPiecesAhead; ++ahead) {
    auto sent = channel_->Send(next, call->deadline);
    if (!sent.ok()) return sent.error();
  }
  for (;;) {
    auto response = Next(*call);
    if (!response.ok()) return response.error();
    if (response->has_export_reply()) return std::move(*response->mutable_export_reply());
    if (!response->has_export_data()) return Unexpected("export");
    if (!on_piece(response->export_data())) {
      SendCancel(call->id);
      return ClientError{kClientCancelled, "cancelled", "the export was given up by its reader"};
    }
    auto sent = channel_->Send(next, call->deadline);
    if (!sent.ok()) return sent.error();
  }
}

ClientResult<v1::ImportReply> CorpusClient::Import(
    std::string_view name, const ImportFeeder& feeder,
    const std::function<void(uint64_t done, uint64_t total)>& on_progress) {
  v1::Request begin;
  begin.mutable_import_begin()->set_name(ToUtf8(name));
  auto call = Start(std::move(begin));
  if (!call.ok()) return call.error();
  std::optional<ClientError> error;
  std::optional<v1::ImportReply> reply;
  const auto take = [&](v1::Response& response) {
    if (response.has_error()) {
      error = FromWire(response.error());
    } else if (response.has_import_reply()) {
      reply = std::move(*response.mutable_import_reply());
    } else if (response.has_progress() && on_progress) {
      on_progress(response.progress().done(), response.progress().total());
    }
  };
  const auto send = [&](v1::Request request) {
    request.set_id(call->id);
    auto sent = channel_->Send(request, call->deadline);
    // The daemon refuses early: a bundle for another model should not be read to its end.
    while (auto response = channel_->TryReceive()) {
      if (response->id() == call->id || response->id() == 0) take(*response);
    }
    if (!sent.ok() && !error) error = sent.error();
    return !error.has_value();
  };
  const ClientResult<Done> fed = feeder([&](std::string_view bytes) {
    for (bool good = true; good && !bytes.empty();) {
      v1::Request request;
      request.mutable_import_data()->set_content(std::string(bytes.substr(0, kPieceBytes)));
      bytes.remove_prefix(std::min(bytes.size(), kPieceBytes));
      good = send(std::move(request));
    }
    return !error.has_value();
  });
  if (error) return *error;
  if (!fed.ok()) {
    SendCancel(call->id);
    return fed.error();
  }
  v1::Request end;
  end.mutable_import_end();
  if (!send(std::move(end))) return *error;
  while (!reply) {
    auto response = Next(*call);
    if (!response.ok()) return response.error();
    if (!response->has_progress() && !response->has_import_reply()) return Unexpected("import");
    take(*response);
  }
  return *std::move(reply);
}

}  // namespace corpusd
