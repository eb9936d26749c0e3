#include "daemon/http/model_handler.h"

#include "client/wire/utf8.h"
#include "daemon/http/completion_request.h"
#include "daemon/http/json_text.h"
#include "daemon/http/openapi_text.h"
#include "daemon/http/perform.h"
#include "daemon/http/router.h"
#include "daemon/version.h"

namespace corpusd {
namespace {

constexpr std::string_view kReady = "ready";

OrderedJson ModelObject(HttpContext& context) {
  const ModelSummary& model = context.services().engine.model();
  OrderedJson object;
  object["id"] = ModelId(context.services());
  object["object"] = "model";
  object["created"] = context.started_at_s();
  object["owned_by"] = "corpusd";
  object["meta"] = {{"n_vocab", model.vocabulary},  {"n_ctx_train", model.context_tokens},
                    {"n_params", model.parameters}, {"architecture", model.architecture},
                    {"digest", model.digest},       {"backend", model.backend}};
  return object;
}

OrderedJson CorpusModelObject(HttpContext& context, const v1::Corpus& corpus) {
  OrderedJson object;
  object["id"] = ModelIdOf(ModelId(context.services()), corpus.name());
  object["object"] = "model";
  object["created"] = corpus.created_at_ms() / 1000;
  object["owned_by"] = "corpusd";
  object["parent"] = ModelId(context.services());
  object["corpus"] = {{"name", corpus.name()},
                      {"mode", corpus.mode()},
                      {"tokens", corpus.tokens()},
                      {"kv_format", corpus.kv_format()}};
  return object;
}

}  // namespace

Result<HttpResponse> HandleModels(HttpContext& context, const HttpRequest& request) {
  v1::Request list;
  list.mutable_list();
  ASSIGN_OR_RETURN(const v1::Response response,
                   Perform(context, request.identity, std::move(list)));
  OrderedJson data = OrderedJson::array();
  data.push_back(ModelObject(context));
  for (const v1::Corpus& corpus : response.list().corpora()) {
    if (corpus.state() == kReady) data.push_back(CorpusModelObject(context, corpus));
  }
  return JsonReply({{"object", "list"}, {"data", std::move(data)}});
}

Result<HttpResponse> HandleModel(HttpContext& context, const HttpRequest& request) {
  const std::string ours = ModelId(context.services());
  std::string corpus;
  if (!ParseModel(ours, request.name, &corpus)) return ErrorReply(NoSuchModel(ours, request.name));
  if (corpus.empty()) return JsonReply(ModelObject(context));
  v1::Request show;
  show.mutable_show()->set_name(corpus);
  const auto response = Perform(context, request.identity, std::move(show));
  if (!response.ok() || response->corpus().state() != kReady) {
    return ErrorReply(NoSuchModel(ours, request.name));
  }
  return JsonReply(CorpusModelObject(context, response->corpus()));
}

Result<HttpResponse> HandleProps(HttpContext& context, const HttpRequest& /*request*/) {
  const Services& services = context.services();
  const ModelSummary& model = services.engine.model();
  OrderedJson body;
  body["model"] = ModelId(services);
  body["build_info"] = "corpusd " + std::string(kVersion);
  body["n_ctx"] = model.context_tokens;
  body["total_slots"] = services.options.queries_max;
  body["max_output_tokens"] = model.context_tokens - 1;
  body["segmented_tokens_max"] = model.segmented_tokens_max;
  body["default_generation_settings"] = {{"n_ctx", model.context_tokens},
                                         {"max_tokens", kHttpAnswerTokensDefault},
                                         {"temperature", 0},
                                         {"top_p", 1}};
  body["limits"] = {{"body_bytes", kPlainBodyBytesMax},
                    {"corpus_body_bytes", services.options.http_body_bytes_max},
                    {"json_depth", kJsonDepthMax},
                    {"messages", kMessagesMax}};
  return JsonReply(body);
}

Result<HttpResponse> HandleOpenApi(HttpContext& /*context*/, const HttpRequest& /*request*/) {
  HttpResponse response;
  response.body = std::string(OpenApiText());
  return response;
}

Result<HttpResponse> HandleTokenize(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ParseJsonObject(request.body));
  JsonFields fields(body);
  const std::string content = fields.Text("content");
  const bool special = fields.Flag("parse_special", true);
  const bool pieces = fields.Flag("with_pieces", false);
  if (fields.error()) return ErrorReply(*fields.error());
  OrderedJson tokens = OrderedJson::array();
  for (const TokenId id : context.services().engine.Tokenize(content, special)) {
    if (!pieces) {
      tokens.push_back(id);
      continue;
    }
    ASSIGN_OR_RETURN(const std::string piece, context.services().engine.Detokenize({&id, 1}));
    OrderedJson text = piece;
    if (!IsUtf8(piece)) {  // half a character: its bytes
      text = OrderedJson::array();
      for (const char c : piece) text.push_back(static_cast<unsigned char>(c));
    }
    tokens.push_back({{"id", id}, {"piece", std::move(text)}});
  }
  return JsonReply({{"tokens", std::move(tokens)}});
}

Result<HttpResponse> HandleDetokenize(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ParseJsonObject(request.body));
  JsonFields fields(body);
  const Json* const tokens = fields.Array("tokens");
  if (fields.error()) return ErrorReply(*fields.error());
  std::vector<TokenId> ids;
  for (size_t i = 0; tokens != nullptr && i < tokens->size(); ++i) {
    const Json& id = (*tokens)[i];
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return ErrorReply(BadRequest("'tokens' must be an array of token ids", "tokens"));
    }
    ids.push_back(id.get<TokenId>());
  }
  const auto text = context.services().engine.Detokenize(ids);
  if (!text.ok()) return ErrorReply(ToApiError(text.status(), "tokens"));
  return JsonReply({{"content", *text}});
}

}  // namespace corpusd
