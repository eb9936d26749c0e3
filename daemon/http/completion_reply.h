// daemon/http/completion_reply.h -- answers of the engine as objects of the OpenAI dialect: whole,
// or as chunks of a stream. What the dialect has no place for (tiers read, times, citations) stands
// under "corpusd". Pure; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/http/json_text.h"

namespace corpusd {

// What all objects of one answer share.
struct CompletionHead {
  std::string id;     // "chatcmpl-..."
  std::string model;  // "MODEL@CORPUS"
  std::string fingerprint;
  int64_t created_s = 0;
  bool chat = true;
  bool logprobs = false;  // were asked for
};

OrderedJson CompletionObject(const CompletionHead& head, const v1::AskReply& reply);
// The first chunk of an answer of a chat: who speaks.
OrderedJson RoleChunk(const CompletionHead& head, uint32_t index);
OrderedJson DeltaChunk(const CompletionHead& head, const v1::AskDelta& delta);
// What return_progress asks for, as llama.cpp's server tells it: tokens of the prompt in all, those
// that were there before, those there now, and the time since it began.
OrderedJson ProgressChunk(const CompletionHead& head, const v1::PromptProgress& progress);
// Why an answer ended; the last one with what stands under "corpusd".
OrderedJson EndChunk(const CompletionHead& head, const v1::AskReply& reply, int index);
// The chunk that stream_options.include_usage asks for: no choices, the usage.
OrderedJson UsageChunk(const CompletionHead& head, const v1::AskReply& reply);

}  // namespace corpusd
