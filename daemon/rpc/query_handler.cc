#include "daemon/rpc/query_handler.h"

#include <string>

#include "client/wire/utf8.h"
#include "daemon/evicted_corpus.h"
#include "daemon/log.h"
#include "daemon/metrics/daemon_metrics.h"

namespace corpusd {
namespace {

// In the protocol 0 says nothing.
double ValueOr(double value, double unsaid) { return value == 0 ? unsaid : value; }

AnswerOptions ToAnswerOptions(const v1::AskRequest& request) {
  AnswerOptions options;
  SamplingOptions& sampling = options.sampling;
  sampling.temperature = request.temperature();
  sampling.top_k = request.top_k();
  sampling.top_p = ValueOr(request.top_p(), sampling.top_p);
  sampling.min_p = request.min_p();
  sampling.repetition_penalty = ValueOr(request.repetition_penalty(), sampling.repetition_penalty);
  if (request.repetition_window() > 0) sampling.repetition_window = request.repetition_window();
  sampling.presence_penalty = request.presence_penalty();
  sampling.frequency_penalty = request.frequency_penalty();
  sampling.seed = request.seed();
  if (request.n() > 0) options.count = request.n();
  options.stop.assign(request.stop().begin(), request.stop().end());
  if (request.logprobs()) options.top_logprobs = request.top_logprobs();
  return options;
}

Result<QuestionRequest> ToQuestion(const v1::AskRequest& request) {
  if (request.question().empty()) return InvalidArgumentError("the question is empty");
  if (request.top_logprobs() > 0 && !request.logprobs()) {
    return InvalidArgumentError("top_logprobs needs logprobs");
  }
  QuestionRequest question;
  question.corpus = request.name();
  question.question = request.question();
  question.max_tokens = request.max_tokens();
  if (request.max_tokens_if_room() > 0) question.max_tokens_if_room = request.max_tokens_if_room();
  question.answers = ToAnswerOptions(request);
  RETURN_IF_ERROR(CheckAnswerOptions(question.answers));
  question.no_cache = request.no_cache();
  question.budget_tokens = request.budget_tokens();
  question.retrieval = request.retrieval();
  question.raw = request.raw();
  question.cache_salt = request.cache_salt();
  for (const v1::ChatMessage& message : request.messages()) {
    question.messages.push_back({message.role(), message.content()});
  }
  return question;
}

void FillLogprob(const TokenLogprob& logprob, v1::TokenLogprob* out) {
  out->set_token(logprob.bytes);
  out->set_id(logprob.id);
  out->set_logprob(logprob.logprob);
  for (const TokenLogprob& other : logprob.top) FillLogprob(other, out->add_top());
}

void FillAnswers(const QuestionReport& report, v1::AskReply* reply) {
  for (const GeneratedAnswer& answer : report.answers) {
    v1::Answer* const out = reply->add_answers();
    out->set_index(static_cast<uint32_t>(reply->answers_size() - 1));
    out->set_text(ToUtf8(answer.text));
    out->set_finish_reason(answer.finish_reason);
    out->set_stop(answer.stop);
    out->set_tokens(answer.tokens);
    for (const TokenLogprob& logprob : answer.logprobs) FillLogprob(logprob, out->add_logprobs());
  }
}

void FillReply(const QuestionReport& report, v1::AskReply* reply) {
  reply->set_answer(ToUtf8(report.answer));
  reply->set_finish_reason(report.finish_reason);
  FillAnswers(report, reply);
  v1::Usage* usage = reply->mutable_usage();
  usage->set_prompt_tokens(report.prompt_tokens);
  usage->set_cached_tokens(report.cached_tokens);
  usage->set_recomputed_tokens(report.recomputed_tokens);
  usage->set_completion_tokens(report.completion_tokens);
  v1::Timing* timing = reply->mutable_timing();
  timing->set_queue_ms(report.queue_ms);
  timing->set_load_ms(report.load_ms);
  timing->set_first_token_ms(report.first_token_ms);
  timing->set_total_ms(report.total_ms);
  timing->set_decode_tokens_per_s(report.decode_tokens_per_s);
  reply->mutable_read()->set_device_bytes(report.device_bytes);
  reply->mutable_read()->set_host_bytes(report.host_bytes);
  reply->mutable_read()->set_disk_bytes(report.disk_bytes);
  reply->set_attended_tokens(report.attended_tokens);
  if (!report.selection) return;
  v1::Selection* selection = reply->mutable_selection();
  selection->set_candidate_blocks(report.selection->candidate_blocks);
  selection->set_chosen_blocks(report.selection->blocks.size());
  selection->set_select_ms(report.selection->select_ms);
}

void FillCitations(const QuestionReport& report, v1::AskReply* reply) {
  for (const Citation& citation : report.citations) {
    v1::Citation* const out = reply->add_citations();
    out->set_source(ToUtf8(citation.source));
    out->set_first_token(citation.first_token);
    out->set_tokens(citation.tokens);
    out->set_weight(citation.weight);
    out->set_first_line(citation.first_line);
    out->set_last_line(citation.last_line);
  }
}

void LogQuery(const std::string& label, const std::string& corpus,
              const Result<QuestionReport>& result, double waited_ms) {
  if (!result.ok()) {
    Log(LogLevel::kWarn, "query",
        {{"request", label},
         {"corpus", corpus},
         {"status", StatusCodeText(result.status().code())},
         {"error", result.status().message()},
         {"queue_ms", waited_ms}});
    return;
  }
  Log(LogLevel::kInfo, "query",
      {{"request", label},
       {"corpus", corpus},
       {"status", "ok"},
       {"finish_reason", result->finish_reason},
       {"prompt_tokens", result->prompt_tokens},
       {"cached_tokens", result->cached_tokens},
       {"recomputed_tokens", result->recomputed_tokens},
       {"completion_tokens", result->completion_tokens},
       {"queue_ms", result->queue_ms},
       {"load_ms", result->load_ms},
       {"first_token_ms", result->first_token_ms},
       {"total_ms", result->total_ms},
       {"decode_tokens_per_s", result->decode_tokens_per_s},
       {"host_bytes", result->host_bytes},
       {"disk_bytes", result->disk_bytes}});
}

void SendProgress(Call& call, const PromptProgress& progress) {
  v1::Response response;
  v1::PromptProgress* const out = response.mutable_ask_delta()->mutable_progress();
  out->set_total_tokens(progress.total_tokens);
  out->set_cached_tokens(progress.cached_tokens);
  out->set_done_tokens(progress.done_tokens);
  out->set_ms(progress.ms);
  call.Send(std::move(response));
}

}  // namespace

void RunQuery(const Services& services, const std::shared_ptr<Call>& call, std::string_view tenant,
              const v1::AskRequest& request) {
  if (!call->Begin()) return;
  const std::chrono::duration<double, std::milli> waited =
      std::chrono::steady_clock::now() - call->came_at();
  Result<QuestionRequest> question = ToQuestion(request);
  if (!question.ok()) return call->Fail(question.status());
  question->tenant = tenant;
  if (request.stream() && request.return_progress()) {
    question->on_prompt = [&](const PromptProgress& progress) { SendProgress(*call, progress); };
  }
  const Status present = CheckNotEvicted(services, question->corpus);
  if (!present.ok()) return call->Fail(present);
  const auto sink = [&](const AnswerDelta& piece) {
    LeaseScope::Renew();
    if (!request.stream()) return !call->ended();
    v1::Response response;
    v1::AskDelta* const delta = response.mutable_ask_delta();
    delta->set_text(ToUtf8(piece.text));
    delta->set_index(piece.choice);
    for (const TokenLogprob& logprob : piece.logprobs) FillLogprob(logprob, delta->add_logprobs());
    return call->Send(std::move(response));
  };
  Result<QuestionReport> report = services.engine.Ask(*question, sink, call->stop_token());
  if (report.ok()) {
    // The engine's clock began when a worker took the question; the client's began before.
    report->queue_ms += waited.count();
    report->first_token_ms += waited.count();
    report->total_ms += waited.count();
  }
  LogQuery(call->label(), request.name(), report, waited.count());
  services.metrics.OnQuestion(request.name(), report);
  if (!report.ok()) {
    // Blocks may have gone while it was being answered: that is what is wrong then.
    const Status there = CheckNotEvicted(services, question->corpus);
    return call->Fail(there.ok() ? report.status() : there);
  }
  v1::Response response;
  FillReply(*report, response.mutable_ask());
  if (request.cite()) FillCitations(*report, response.mutable_ask());
  call->Finish(std::move(response));
}

}  // namespace corpusd
