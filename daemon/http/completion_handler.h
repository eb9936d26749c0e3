// daemon/http/completion_handler.h -- POST /v1/chat/completions and /v1/completions: the way of
// every question (rpc/query_handler.h), with a sink that speaks the OpenAI dialect. A client that
// goes cancels its answer.
#pragma once

#include <memory>

#include "daemon/http/exchange.h"
#include "daemon/http/http_context.h"

namespace corpusd {

void AnswerChatCompletion(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange);
void AnswerCompletion(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange);

}  // namespace corpusd
