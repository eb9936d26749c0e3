// daemon/http/completion_request.h -- bodies of POST /v1/chat/completions and /v1/completions into
// the protocol's AskRequest, which then goes the way of every question. Fields that nobody knows
// are ignored; those that are known have the right type or the request is refused, naming the
// field. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/http/api_error.h"

namespace corpusd {

inline constexpr uint32_t kHttpAnswerTokensDefault = 512;
inline constexpr size_t kMessagesMax = 4096;

// What of a request does not concern the engine.
struct CompletionRequest {
  v1::AskRequest ask;
  bool chat = true;            // else /v1/completions
  bool include_usage = false;  // a last chunk of a stream with the usage
  std::string model;           // echoed, "MODEL@CORPUS"
};

// The error to answer with, or the request.
struct CompletionRead {
  CompletionRequest request;
  std::optional<ApiError> error;
};
// ours: what clients call this daemon's model.
CompletionRead ReadCompletion(std::string_view ours, bool chat, std::string_view body);

// Whether `id` names our model, in any case; corpus: what stands behind its last '@'.
bool ParseModel(std::string_view ours, std::string_view id, std::string* corpus);
ApiError NoSuchModel(std::string_view ours, std::string_view id);
// "OURS@CORPUS"
std::string ModelIdOf(std::string_view ours, std::string_view corpus);

}  // namespace corpusd
