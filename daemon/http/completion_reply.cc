#include "daemon/http/completion_reply.h"

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

OrderedJson ChunkChoice(const CompletionHead& head, const OrderedJson& delta,
                        const std::string& text, const OrderedJson& finish_reason) {
  OrderedJson choice;
  choice["index"] = 0;
  if (head.chat) {
    choice["delta"] = delta;
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish_reason;
  return choice;
}

}  // namespace

OrderedJson CompletionObject(const CompletionHead& head, const v1::AskReply& reply) {
  OrderedJson body = Envelope(head, head.chat ? "chat.completion" : "text_completion");
  OrderedJson choice;
  choice["index"] = 0;
  if (head.chat) {
    choice["message"] = {{"role", "assistant"}, {"content", reply.answer()}};
  } else {
    choice["text"] = reply.answer();
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = reply.finish_reason();
  body["choices"] = OrderedJson::array({std::move(choice)});
  body["usage"] = UsageOf(reply);
  body["corpusd"] = OwnFieldsOf(reply);
  return body;
}

OrderedJson RoleChunk(const CompletionHead& head) {
  OrderedJson body = Chunk(head);
  body["choices"] = OrderedJson::array(
      {ChunkChoice(head, {{"role", "assistant"}, {"content", ""}}, "", nullptr)});
  return body;
}

OrderedJson DeltaChunk(const CompletionHead& head, const v1::AskDelta& delta) {
  OrderedJson body = Chunk(head);
  body["choices"] =
      OrderedJson::array({ChunkChoice(head, {{"content", delta.text()}}, delta.text(), nullptr)});
  return body;
}

OrderedJson EndChunk(const CompletionHead& head, const v1::AskReply& reply) {
  OrderedJson body = Chunk(head);
  body["choices"] =
      OrderedJson::array({ChunkChoice(head, OrderedJson::object(), "", reply.finish_reason())});
  body["corpusd"] = OwnFieldsOf(reply);
  return body;
}

OrderedJson UsageChunk(const CompletionHead& head, const v1::AskReply& reply) {
  OrderedJson body = Chunk(head);
  body["choices"] = OrderedJson::array();
  body["usage"] = UsageOf(reply);
  return body;
}

}  // namespace corpusd
