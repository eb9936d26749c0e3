#include "daemon/http/completion_handler.h"

#include <utility>

#include "daemon/http/api_error.h"
#include "daemon/http/completion_reply.h"
#include "daemon/http/completion_request.h"
#include "daemon/http/perform.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/call_runner.h"
#include "daemon/rpc/query_handler.h"

namespace corpusd {
namespace {

constexpr size_t kFingerprintDigits = 12;
constexpr std::string_view kMaxTokens = "max_tokens";
// In every refusal of a text that is longer than the model can see; the code by which clients of
// the dialect know it, and the words by which others do.
constexpr std::string_view kContext = "the model's context";
constexpr const char* kTooLong = "context_length_exceeded";
constexpr const char* kTooLongWords = "the prompt is too long: ";

CompletionHead HeadOf(const Services& services, const CompletionRequest& request) {
  CompletionHead head;
  head.chat = request.chat;
  head.logprobs = request.ask.logprobs();
  head.id = (request.chat ? "chatcmpl-" : "cmpl-") + RandomId();
  head.model = request.model;
  head.fingerprint = "fp_" + services.engine.model().digest.substr(0, kFingerprintDigits);
  head.created_s = services.now_ms() / 1000;
  return head;
}

// Responses of a question as JSON, in the order in which they come: the call sends one at a time.
class CompletionSink : public ResponseSink {
 public:
  CompletionSink(std::shared_ptr<HttpExchange> exchange, CompletionHead head,
                 const CompletionRequest& request)
      : exchange_(std::move(exchange)),
        head_(std::move(head)),
        stream_(request.ask.stream()),
        include_usage_(request.include_usage),
        answers_(request.ask.n()),
        corpus_field_(request.ask.name().empty() ? "" : "model") {}

  bool Send(const v1::Response& response) override {
    if (response.has_error()) return Fail(response.error());
    if (response.has_ask_delta()) {
      Begin();
      const v1::AskDelta& delta = response.ask_delta();
      return exchange_->SendPiece(
          SseData(JsonText(delta.has_progress() ? ProgressChunk(head_, delta.progress())
                                                : DeltaChunk(head_, delta))));
    }
    if (response.has_ask()) Finish(response.ask());
    return true;
  }

 private:
  // Late: what fails before the first token fails with a status of its own.
  void Begin() {
    if (std::exchange(begun_, true)) return;
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    exchange_->BeginStream(std::move(head));
    for (uint32_t i = 0; head_.chat && i < answers_; ++i) {
      exchange_->SendPiece(SseData(JsonText(RoleChunk(head_, i))));
    }
  }

  bool Fail(const v1::Error& error) {
    const auto code = static_cast<StatusCode>(error.code());
    std::string_view param = code == StatusCode::kNotFound ? corpus_field_ : "";
    // The engine knows how much room there is.
    if (std::string_view(error.message()).starts_with(kMaxTokens)) param = kMaxTokens;
    ApiError api = ToApiError({code, error.message()}, param);
    if (code == StatusCode::kInvalidArgument &&
        error.message().find(kContext) != std::string::npos) {
      api.code = kTooLong;
      if (param != kMaxTokens) api.message = kTooLongWords + api.message;
    }
    if (!begun_) {
      exchange_->Send(ErrorReply(api));
      return true;
    }
    exchange_->SendPiece(SseData(ErrorJson(api)));
    exchange_->EndStream();
    return true;
  }

  void Finish(const v1::AskReply& reply) {
    if (!stream_) return exchange_->Send(JsonReply(CompletionObject(head_, reply)));
    Begin();
    for (int i = 0; i < reply.answers_size(); ++i) {
      exchange_->SendPiece(SseData(JsonText(EndChunk(head_, reply, i))));
    }
    if (include_usage_) exchange_->SendPiece(SseData(JsonText(UsageChunk(head_, reply))));
    exchange_->SendPiece(SseData("[DONE]"));
    exchange_->EndStream();
  }

  const std::shared_ptr<HttpExchange> exchange_;
  const CompletionHead head_;
  const bool stream_;
  const bool include_usage_;
  const uint32_t answers_;
  const char* const corpus_field_;  // the field to blame for an unknown corpus
  bool begun_ = false;
};

void Answer(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange, bool chat) {
  const Services& services = context.services();
  CompletionRead read = ReadCompletion(ModelId(services), chat, exchange->request().body);
  const char* const route = chat ? "/v1/chat/completions" : "/v1/completions";
  if (read.error) return context.Send(*exchange, route, ErrorReply(*read.error));
  const CompletionHead head = HeadOf(services, read.request);
  std::shared_ptr<ResponseSink> sink =
      std::make_shared<CompletionSink>(exchange, head, read.request);
  v1::Request ask;
  *ask.mutable_ask() = std::move(read.request.ask);
  const Result<Principal> admitted = Admit(context, exchange->request().identity, &ask, &sink);
  const auto call = std::make_shared<Call>(1, std::move(sink), services.timers,
                                           [&metrics = services.metrics, route](StatusCode code) {
                                             metrics.OnRequest("http", route, code);
                                           });
  call->set_label(exchange->request().id);
  if (!admitted.ok()) return call->Fail(admitted.status());
  exchange->OnStop([weak = std::weak_ptr<Call>(call)](const Status& why) {
    if (const auto asked = weak.lock()) asked->Cancel(why);
  });
  const HttpRequest& request = exchange->request();
  RunCall(services.queries, call, "http " + request.id + ", " + IdentityText(request.identity),
          [&services, call, tenant = admitted->tenant, ask = std::move(ask)] {
            RunQuery(services, call, tenant, ask.ask());
          });
}

}  // namespace

void AnswerChatCompletion(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange) {
  Answer(context, exchange, true);
}

void AnswerCompletion(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange) {
  Answer(context, exchange, false);
}

}  // namespace corpusd
