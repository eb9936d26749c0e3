#include "daemon/http/completion_request.h"

#include <algorithm>
#include <limits>

#include "client/wire/utf8.h"
#include "daemon/http/json_text.h"
#include "engine/decode/sampling.h"

namespace corpusd {
namespace {

constexpr std::string_view kCachedContentPrefix = "corpora/";
constexpr int64_t kTokensMax = std::numeric_limits<int32_t>::max();

// Text of a message: a string, or parts that are all texts. Null where a turn only calls tools.
std::string ContentOf(const Json& message, const std::string& name, JsonFields* fields) {
  const auto entry = message.find("content");
  if (entry == message.end() || entry->is_null()) return "";
  if (entry->is_string()) return entry->get_ref<const std::string&>();
  std::string text;
  if (!entry->is_array()) {
    fields->Refuse(name + ".content", "must be a string or an array of text parts");
    return text;
  }
  for (const Json& part : *entry) {
    JsonFields inside(part, name + ".content.");
    const bool typed = part.is_object() && inside.Text("type", "text") == "text";
    if (!typed || part.find("text") == part.end()) {
      fields->Refuse(name + ".content", "has a part that is no text; only text can be read");
      return text;
    }
    text += (text.empty() ? "" : "\n") + inside.Text("text");
    if (inside.error()) fields->Refuse(*inside.error());
  }
  return text;
}

// The chat template knows three roles; others stand for one of them.
std::string RoleOf(const Json& message, const std::string& name, JsonFields* fields) {
  JsonFields inside(message, name + ".");
  const std::string role = inside.Text("role");
  if (inside.error()) fields->Refuse(*inside.error());
  if (role == "system" || role == "user" || role == "assistant") return role;
  if (role == "developer") return "system";
  if (role == "tool" || role == "function") return "user";
  fields->Refuse(name + ".role",
                 "must be one of system, developer, user, assistant, tool; got '" + role + "'");
  return role;
}

void ReadMessages(JsonFields* fields, v1::AskRequest* ask) {
  const Json* const messages = fields->Array("messages");
  if (fields->error()) return;
  if (messages == nullptr || messages->empty() || messages->size() > kMessagesMax) {
    return fields->Refuse("messages",
                          "must be an array of 1 to " + std::to_string(kMessagesMax) + " messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const std::string name = "messages[" + std::to_string(i) + "]";
    if (!(*messages)[i].is_object()) return fields->Refuse(name, "must be an object");
    v1::ChatMessage* const message = ask->add_messages();
    message->set_role(RoleOf((*messages)[i], name, fields));
    message->set_content(ContentOf((*messages)[i], name, fields));
    if (message->role() == "user") ask->set_question(message->content());
  }
  if (ask->question().empty()) fields->Refuse("messages", "has no user's message with a text");
}

void ReadPrompt(JsonFields* fields, v1::AskRequest* ask) {
  const std::vector<std::string> prompts = fields->Texts("prompt", 1);
  if (fields->error()) return;
  if (prompts.empty() || prompts[0].empty()) {
    return fields->Refuse("prompt", "must be a text, or an array of one");
  }
  ask->set_question(prompts[0]);
  ask->set_raw(true);
}

void ReadModel(std::string_view ours, JsonFields* fields, CompletionRequest* request) {
  const std::string model = fields->Text("model");
  const std::string cached = fields->Text("cached_content");
  if (fields->error()) return;
  std::string corpus;
  if (!model.empty() && !ParseModel(ours, model, &corpus)) {
    return fields->Refuse(NoSuchModel(ours, model));
  }
  if (!cached.empty()) {
    if (!std::string_view(cached).starts_with(kCachedContentPrefix) ||
        cached.size() == kCachedContentPrefix.size()) {
      return fields->Refuse("cached_content", "must be \"corpora/NAME\"");
    }
    const std::string named = cached.substr(kCachedContentPrefix.size());
    if (!corpus.empty() && corpus != named) {
      return fields->Refuse("cached_content", "names another corpus than 'model' does");
    }
    corpus = named;
  }
  request->ask.set_name(corpus);
  request->model = corpus.empty() ? std::string(ours) : ModelIdOf(ours, corpus);
}

void ReadLogprobs(bool chat, JsonFields* fields, v1::AskRequest* ask) {
  if (!chat) {  // how many of the likeliest
    ask->set_logprobs(fields->Find("logprobs") != nullptr);
    return ask->set_top_logprobs(
        static_cast<uint32_t>(fields->Whole("logprobs", 0, kTopLogprobsMax, 0)));
  }
  ask->set_logprobs(fields->Flag("logprobs", false));
  ask->set_top_logprobs(
      static_cast<uint32_t>(fields->Whole("top_logprobs", 0, kTopLogprobsMax, 0)));
  if (ask->top_logprobs() > 0 && !ask->logprobs()) {
    fields->Refuse("top_logprobs", "needs 'logprobs' to be true");
  }
}

void ReadSampling(bool chat, JsonFields* fields, v1::AskRequest* ask) {
  ask->set_temperature(fields->Number("temperature", 0, kTemperatureMax, 0));
  ask->set_top_p(fields->Number("top_p", 0, 1, 1));
  // -1 is what some servers call all of them.
  ask->set_top_k(
      static_cast<uint32_t>(std::max<int64_t>(0, fields->Whole("top_k", -1, kTokensMax, 0))));
  ask->set_min_p(fields->Number("min_p", 0, 1, 0));
  const double other_name = fields->Number("repeat_penalty", 0, kRepetitionPenaltyMax, 0);
  ask->set_repetition_penalty(
      fields->Number("repetition_penalty", 0, kRepetitionPenaltyMax, other_name));
  ask->set_repetition_window(
      static_cast<uint32_t>(fields->Whole("repetition_window", 0, kRepetitionWindowMax, 0)));
  ask->set_presence_penalty(
      fields->Number("presence_penalty", -kAdditivePenaltyMax, kAdditivePenaltyMax, 0));
  ask->set_frequency_penalty(
      fields->Number("frequency_penalty", -kAdditivePenaltyMax, kAdditivePenaltyMax, 0));
  ask->set_seed(static_cast<uint64_t>(fields->Whole("seed", INT64_MIN, INT64_MAX, 0)));
  ask->set_n(static_cast<uint32_t>(fields->Whole("n", 1, kAnswersMax, 1)));
  for (std::string& stop : fields->Texts("stop", kStopStringsMax)) {
    if (stop.empty() || stop.size() > kStopStringBytesMax) {
      fields->Refuse("stop",
                     "must be texts of 1 to " + std::to_string(kStopStringBytesMax) + " bytes");
    }
    ask->add_stop(std::move(stop));
  }
  ReadLogprobs(chat, fields, ask);
  const int64_t old_name = fields->Whole("max_tokens", 1, kTokensMax, 0);
  ask->set_max_tokens(
      static_cast<uint32_t>(fields->Whole("max_completion_tokens", 1, kTokensMax, old_name)));
  ask->set_max_tokens_if_room(kHttpAnswerTokensDefault);
}

// Whether a value asks for something: null, false, nothing in it and a plain text do not.
bool AsksFor(std::string_view field, const Json& value) {
  if (field == "response_format" && value.is_object()) {
    const auto type = value.find("type");
    return type == value.end() || *type != "text";
  }
  if (field == "best_of") return value != 1;
  if (value.is_boolean()) return value.get<bool>();
  return !value.is_null() && !value.empty() && value != "";
}

// What others offer and would shape the answer: refused, since a client that set it counts on it.
void RefuseUnoffered(JsonFields* fields) {
  constexpr std::string_view kUnoffered[] = {"response_format", "grammar", "json_schema",
                                             "logit_bias",      "suffix",  "echo",
                                             "best_of",         "audio"};
  for (const std::string_view field : kUnoffered) {
    const Json* const value = fields->Find(field);
    if (value != nullptr && AsksFor(field, *value)) {
      fields->Refuse(field, "is not offered; leave it out");
    }
  }
  const Json* const choice = fields->Find("tool_choice");
  if (choice != nullptr && *choice == "none") return;
  for (const std::string_view field : {"tools", "functions"}) {
    const Json* const value = fields->Find(field);
    if (value != nullptr && AsksFor(field, *value)) {
      fields->Refuse(field, "are not offered; leave them out, or set tool_choice to \"none\"");
    }
  }
}

}  // namespace

bool ParseModel(std::string_view ours, std::string_view id, std::string* corpus) {
  const size_t at = id.rfind('@');
  const std::string_view model = id.substr(0, at);
  if (!EqualsIgnoringCase(model, ours)) return false;
  *corpus = at == std::string_view::npos ? "" : std::string(id.substr(at + 1));
  return at == std::string_view::npos || !corpus->empty();
}

ApiError NoSuchModel(std::string_view ours, std::string_view id) {
  ApiError error =
      ToApiError(NotFoundError("there is no model '" + std::string(id) + "'; this daemon serves '" +
                               std::string(ours) + "', and '" + ModelIdOf(ours, "CORPUS") +
                               "' for each ready corpus: GET /v1/models"),
                 "model");
  error.code = "model_not_found";
  return error;
}

std::string ModelIdOf(std::string_view ours, std::string_view corpus) {
  return std::string(ours) + "@" + std::string(corpus);
}

CompletionRead ReadCompletion(std::string_view ours, bool chat, std::string_view body) {
  CompletionRead read;
  CompletionRequest& request = read.request;
  const auto json = ParseJsonObject(body);
  if (!json.ok()) {
    read.error = ToApiError(json.status());
    return read;
  }
  JsonFields fields(*json);
  request.chat = chat;
  ReadModel(ours, &fields, &request);
  v1::AskRequest* const ask = &request.ask;
  if (chat) {
    ReadMessages(&fields, ask);
  } else {
    ReadPrompt(&fields, ask);
  }
  ReadSampling(chat, &fields, ask);
  RefuseUnoffered(&fields);
  ask->set_stream(fields.Flag("stream", false));
  ask->set_cite(fields.Flag("cite", false));
  ask->set_return_progress(fields.Flag("return_progress", false));
  // llama.cpp's word for the second, which corpora have no need of.
  const bool uncached = !fields.Flag("cache_prompt", true) && ask->name().empty();
  ask->set_no_cache(fields.Flag("no_cache", false) || uncached);
  ask->set_cache_salt(fields.Text("cache_salt"));
  ask->set_budget_tokens(static_cast<uint32_t>(fields.Whole("budget_tokens", 0, kTokensMax, 0)));
  ask->set_retrieval(fields.Text("retrieval"));
  if (const Json* const options = fields.Object("stream_options")) {
    JsonFields inside(*options, "stream_options.");
    request.include_usage = inside.Flag("include_usage", false);
    if (inside.error()) fields.Refuse(*inside.error());
  }
  read.error = fields.error();
  return read;
}

}  // namespace corpusd
