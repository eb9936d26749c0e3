#include "daemon/http/completion_reply.h"

#include "client/wire/utf8.h"

namespace corpusd {
namespace {

OrderedJson Envelope(const CompletionHead& head, const char* object) {
  OrderedJson body;
  body["id"] = head.id;
  body["object"] = object;
  body["created"] = head.created_s;
  body["model"] = head.model;
  body["system_fingerprint"] = head.fingerprint;
  return body;
}

OrderedJson Chunk(const CompletionHead& head) {
  return Envelope(head, head.chat ? "chat.completion.chunk" : "text_completion");
}

OrderedJson UsageOf(const v1::AskReply& reply) {
  const v1::Usage& usage = reply.usage();
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"total_tokens", usage.prompt_tokens() + usage.completion_tokens()},
          {"prompt_tokens_details",
           {{"cached_tokens", usage.cached_tokens()},
            {"recomputed_tokens", usage.recomputed_tokens()}}}};
}

OrderedJson CitationsOf(const v1::AskReply& reply) {
  OrderedJson citations = OrderedJson::array();
  for (const v1::Citation& citation : reply.citations()) {
    citations.push_back({{"source", citation.source()},
                         {"first_token", citation.first_token()},
                         {"tokens", citation.tokens()},
                         {"weight", citation.weight()},
                         {"first_line", citation.first_line()},
                         {"last_line", citation.last_line()}});
  }
  return citations;
}

// Names as in `corpusctl ask -o json`.
OrderedJson OwnFieldsOf(const v1::AskReply& reply) {
  const v1::Timing& timing = reply.timing();
  OrderedJson own;
  own["timing"] = {{"queue_ms", timing.queue_ms()},
                   {"load_ms", timing.load_ms()},
                   {"first_token_ms", timing.first_token_ms()},
                   {"total_ms", timing.total_ms()},
                   {"decode_tokens_per_s", timing.decode_tokens_per_s()}};
  own["read"] = {{"device_bytes", reply.read().device_bytes()},
                 {"host_bytes", reply.read().host_bytes()},
                 {"disk_bytes", reply.read().disk_bytes()},
                 {"remote_bytes", reply.read().remote_bytes()}};
  own["attended_tokens"] = reply.attended_tokens();
  if (reply.citations_size() > 0) own["citations"] = CitationsOf(reply);
  if (reply.has_selection()) {
    own["selection"] = {{"candidate_blocks", reply.selection().candidate_blocks()},
                        {"chosen_blocks", reply.selection().chosen_blocks()},
                        {"select_ms", reply.selection().select_ms()}};
  }
  return own;
}

using Logprobs = google::protobuf::RepeatedPtrField<v1::TokenLogprob>;

OrderedJson LogprobOf(const v1::TokenLogprob& logprob) {
  OrderedJson bytes = OrderedJson::array();
  for (const char byte : logprob.token()) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", logprob.token()}, {"logprob", logprob.logprob()}, {"bytes", std::move(bytes)}};
}

OrderedJson ChatLogprobs(const Logprobs& logprobs) {
  OrderedJson content = OrderedJson::array();
  for (const v1::TokenLogprob& logprob : logprobs) {
    OrderedJson entry = LogprobOf(logprob);
    entry["top_logprobs"] = OrderedJson::array();
    for (const v1::TokenLogprob& other : logprob.top()) {
      entry["top_logprobs"].push_back(LogprobOf(other));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// Offsets count bytes from where these tokens begin.
OrderedJson PlainLogprobs(const Logprobs& logprobs) {
  OrderedJson tokens = OrderedJson::array(), values = OrderedJson::array();
  OrderedJson top = OrderedJson::array(), offsets = OrderedJson::array();
  size_t offset = 0;
  for (const v1::TokenLogprob& logprob : logprobs) {
    tokens.push_back(logprob.token());
    values.push_back(logprob.logprob());
    offsets.push_back(offset);
    offset += logprob.token().size();
    OrderedJson others = OrderedJson::object();
    for (const v1::TokenLogprob& other : logprob.top()) {
      others[ReplaceInvalidUtf8(other.token())] = other.logprob();
    }
    top.push_back(std::move(others));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(top)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson LogprobsOf(const CompletionHead& head, const Logprobs& logprobs) {
  if (!head.logprobs) return nullptr;
  return head.chat ? ChatLogprobs(logprobs) : PlainLogprobs(logprobs);
}

OrderedJson ChunkOf(const CompletionHead& head, uint32_t index, const OrderedJson& delta,
                    const std::string& text) {
  OrderedJson choice;
  choice["index"] = index;
  if (head.chat) {
    choice["delta"] = delta;
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = nullptr;
  OrderedJson body = Chunk(head);
  body["choices"] = OrderedJson::array({std::move(choice)});
  return body;
}

}  // namespace

OrderedJson CompletionObject(const CompletionHead& head, const v1::AskReply& reply) {
  OrderedJson body = Envelope(head, head.chat ? "chat.completion" : "text_completion");
  OrderedJson choices = OrderedJson::array();
  for (const v1::Answer& answer : reply.answers()) {
    OrderedJson choice;
    choice["index"] = answer.index();
    if (head.chat) {
      choice["message"] = {{"role", "assistant"}, {"content", answer.text()}};
    } else {
      choice["text"] = answer.text();
    }
    choice["logprobs"] = LogprobsOf(head, answer.logprobs());
    choice["finish_reason"] = answer.finish_reason();
    choices.push_back(std::move(choice));
  }
  body["choices"] = std::move(choices);
  body["usage"] = UsageOf(reply);
  body["corpusd"] = OwnFieldsOf(reply);
  return body;
}

OrderedJson RoleChunk(const CompletionHead& head, uint32_t index) {
  return ChunkOf(head, index, {{"role", "assistant"}, {"content", ""}}, "");
}

OrderedJson DeltaChunk(const CompletionHead& head, const v1::AskDelta& delta) {
  OrderedJson body = ChunkOf(head, delta.index(), {{"content", delta.text()}}, delta.text());
  body["choices"][0]["logprobs"] = LogprobsOf(head, delta.logprobs());
  return body;
}

OrderedJson ProgressChunk(const CompletionHead& head, const v1::PromptProgress& progress) {
  OrderedJson body = ChunkOf(head, 0, OrderedJson::object(), "");
  body["prompt_progress"] = {{"total", progress.total_tokens()},
                             {"cache", progress.cached_tokens()},
                             {"processed", progress.done_tokens()},
                             {"time_ms", progress.ms()}};
  return body;
}

OrderedJson EndChunk(const CompletionHead& head, const v1::AskReply& reply, int index) {
  OrderedJson body = ChunkOf(head, static_cast<uint32_t>(index), OrderedJson::object(), "");
  body["choices"][0]["finish_reason"] = reply.answers(index).finish_reason();
  if (index + 1 == reply.answers_size()) body["corpusd"] = OwnFieldsOf(reply);
  return body;
}

OrderedJson UsageChunk(const CompletionHead& head, const v1::AskReply& reply) {
  OrderedJson body = Chunk(head);
  body["choices"] = OrderedJson::array();
  body["usage"] = UsageOf(reply);
  return body;
}

}  // namespace corpusd
