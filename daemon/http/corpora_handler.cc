#include "daemon/http/corpora_handler.h"

#include <algorithm>
#include <cmath>

#include "client/wire/object_json.h"
#include "daemon/http/perform.h"
#include "daemon/rpc/corpus_message.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

constexpr double kSecondsMax = 3e9;  // a century

std::string EtagOf(const v1::Corpus& corpus) {
  return "\"" + std::to_string(corpus.id()) + "-" + std::to_string(corpus.generation()) + "\"";
}

// Whether a list of entity tags has this one, or is "*".
bool HasTag(std::string_view list, std::string_view tag) {
  while (!list.empty()) {
    std::string_view one = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), one.size() + 1));
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (one == "*" || one == tag) return true;
  }
  return false;
}

// A body may be absent; then it is {}.
Result<Json> ReadBody(const HttpRequest& request) {
  if (request.body.empty()) return Json(Json::object());
  return ParseJsonObject(request.body);
}

Result<v1::Corpus> Show(HttpContext& context, const HttpRequest& request) {
  v1::Request ask;
  ask.mutable_show()->set_name(request.name);
  ASSIGN_OR_RETURN(v1::Response response, Perform(context, request.identity, std::move(ask)));
  return std::move(*response.mutable_corpus());
}

Status PreconditionFailed(const std::string& name) {
  return FailedPreconditionError("corpus '" + name + "' has changed since: its ETag is another");
}

// The generation that a change must find; 0: any. kFailedPrecondition if If-Match names none that
// the corpus has.
Result<uint64_t> WantedGeneration(HttpContext& context, const HttpRequest& request) {
  const std::string* const wanted = request.Header("If-Match");
  if (wanted == nullptr) return uint64_t{0};
  ASSIGN_OR_RETURN(const v1::Corpus corpus, Show(context, request));
  if (!HasTag(*wanted, EtagOf(corpus))) return PreconditionFailed(request.name);
  return *wanted == "*" ? uint64_t{0} : corpus.generation();
}

// A change that came too late says so as If-Match has it.
Result<HttpResponse> ChangedReply(HttpContext& context, const HttpRequest& request,
                                  const Result<v1::Response>& response) {
  if (response.ok()) return CorpusReply(context.services(), response->corpus());
  const bool conditional = request.Header("If-Match") != nullptr;
  if (conditional && response.status().code() == StatusCode::kAborted) {
    return PreconditionFailed(request.name);
  }
  return response.status();
}

void ReadPin(JsonFields* fields, const HttpRequest& request, v1::PinRequest* pin) {
  pin->set_name(request.name);
  pin->set_tier(fields->Text("tier"));
  pin->set_reason(fields->Text("reason"));
  pin->set_keep(true);
}

}  // namespace

uint64_t ReadTtl(JsonFields* fields, std::string_view field, uint64_t otherwise) {
  const Json* const value = fields->Find(field);
  if (value == nullptr) return otherwise;
  if (value->is_number()) {
    return static_cast<uint64_t>(fields->Number(field, 0, kSecondsMax, 0) * 1000);
  }
  const auto time = ParseDurationMs(fields->Text(field));
  if (time.ok() && *time >= 0) return static_cast<uint64_t>(*time);
  fields->Refuse(field, "must be a duration such as \"30d\", or seconds");
  return otherwise;
}

HttpResponse CorpusReply(const Services& services, const v1::Corpus& corpus, int status) {
  OrderedJson body = {{"object", "corpus"}};
  body.update(CorpusToJson(corpus));
  body["job"] = nullptr;
  if (corpus.job_id() != 0) {
    const auto job = services.jobs.Get(corpus.job_id());
    if (job.ok()) {
      v1::Job message = ToMessage(*job);
      message.set_corpus(corpus.name());  // as the client calls it
      body["job"] = JobToJson(message);
    }
  }
  HttpResponse response = JsonReply(body, status);
  response.headers.push_back({"ETag", EtagOf(corpus)});
  return response;
}

Result<HttpResponse> HandleListCorpora(HttpContext& context, const HttpRequest& request) {
  v1::Request list;
  list.mutable_list();
  ASSIGN_OR_RETURN(const v1::Response response, Perform(context, request.identity, list));
  OrderedJson data = OrderedJson::array();
  for (const v1::Corpus& corpus : response.list().corpora()) {
    OrderedJson entry = {{"object", "corpus"}};
    entry.update(CorpusToJson(corpus));
    entry.erase("sources");
    data.push_back(std::move(entry));
  }
  return JsonReply({{"object", "list"}, {"data", std::move(data)}});
}

Result<HttpResponse> HandleGetCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const v1::Corpus corpus, Show(context, request));
  const std::string* const known = request.Header("If-None-Match");
  HttpResponse response = CorpusReply(context.services(), corpus);
  if (known != nullptr && HasTag(*known, EtagOf(corpus))) {
    response.status = 304;
    response.body.clear();
  }
  return response;
}

namespace {

// Pins or unpins as a PATCH wants it; the pin's own fields only change a pin that is wanted.
v1::Request PinChange(bool pinned, const v1::PinRequest& pin) {
  v1::Request change;
  if (pinned) {
    *change.mutable_pin() = pin;
    return change;
  }
  change.mutable_unpin()->set_name(pin.name());
  change.mutable_unpin()->set_if_generation(pin.if_generation());
  return change;
}

}  // namespace

Result<HttpResponse> HandlePatchCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ReadBody(request));
  JsonFields fields(body);
  v1::Request change;
  v1::TouchRequest* const touch = change.mutable_touch();
  touch->set_name(request.name);
  touch->set_keep_expiry(body.find("ttl") == body.end());
  touch->set_ttl_ms(ReadTtl(&fields, "ttl", 0));
  touch->set_priority(fields.Text("priority"));
  if (!touch->priority().empty() && !ParsePriority(touch->priority()).ok()) {
    fields.Refuse("priority", "must be one of low, normal, high");
  }
  const bool has_pinned = fields.Find("pinned") != nullptr;
  const bool pinned = fields.Flag("pinned", false);
  v1::PinRequest pin;
  ReadPin(&fields, request, &pin);
  if (fields.error()) return ErrorReply(*fields.error());
  ASSIGN_OR_RETURN(const uint64_t generation, WantedGeneration(context, request));
  pin.set_if_generation(generation);
  touch->set_if_generation(generation);
  // The pin first: it may be refused, and then nothing has changed.
  if (has_pinned) {
    const auto changed = Perform(context, request.identity, PinChange(pinned, pin));
    if (!changed.ok()) return ChangedReply(context, request, changed);
    touch->set_if_generation(generation == 0 ? 0 : changed->corpus().generation());
  }
  return ChangedReply(context, request, Perform(context, request.identity, std::move(change)));
}

Result<HttpResponse> HandleDeleteCorpus(HttpContext& context, const HttpRequest& request) {
  v1::Request remove;
  remove.mutable_remove()->set_name(request.name);
  ASSIGN_OR_RETURN(const uint64_t generation, WantedGeneration(context, request));
  remove.mutable_remove()->set_if_generation(generation);
  const auto removed = Perform(context, request.identity, std::move(remove));
  if (!removed.ok()) return ChangedReply(context, request, removed);
  return JsonReply({{"name", request.name}, {"object", "corpus"}, {"deleted", true}});
}

Result<HttpResponse> HandleCancelCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const v1::Corpus corpus, Show(context, request));
  if (corpus.job_id() == 0) {
    return FailedPreconditionError("corpus '" + request.name + "' has no job to cancel; it is " +
                                   corpus.state());
  }
  v1::Request cancel;
  cancel.mutable_cancel_job()->set_id(corpus.job_id());
  RETURN_IF_ERROR(Perform(context, request.identity, std::move(cancel)).status());
  ASSIGN_OR_RETURN(const v1::Corpus after, Show(context, request));
  return CorpusReply(context.services(), after);
}

Result<HttpResponse> HandlePinCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ReadBody(request));
  JsonFields fields(body);
  v1::Request change;
  v1::PinRequest* const pin = change.mutable_pin();
  ReadPin(&fields, request, pin);
  pin->set_ttl_ms(ReadTtl(&fields, "ttl", 0));
  pin->set_never_expires(body.find("ttl") != body.end() && pin->ttl_ms() == 0);
  if (fields.error()) return ErrorReply(*fields.error());
  ASSIGN_OR_RETURN(const uint64_t generation, WantedGeneration(context, request));
  pin->set_if_generation(generation);
  return ChangedReply(context, request, Perform(context, request.identity, std::move(change)));
}

Result<HttpResponse> HandleUnpinCorpus(HttpContext& context, const HttpRequest& request) {
  v1::Request change;
  change.mutable_unpin()->set_name(request.name);
  ASSIGN_OR_RETURN(const uint64_t generation, WantedGeneration(context, request));
  change.mutable_unpin()->set_if_generation(generation);
  return ChangedReply(context, request, Perform(context, request.identity, std::move(change)));
}

Result<HttpResponse> HandleWarmCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ReadBody(request));
  JsonFields fields(body);
  v1::Request warm;
  warm.mutable_warm()->set_name(request.name);
  warm.mutable_warm()->set_to(fields.Text("to"));
  if (fields.error()) return ErrorReply(*fields.error());
  ASSIGN_OR_RETURN(const v1::Response response,
                   Perform(context, request.identity, std::move(warm)));
  const v1::WarmReply& reply = response.warm();
  return JsonReply({{"name", request.name},
                    {"blocks", reply.blocks()},
                    {"bytes", reply.bytes()},
                    {"disk_bytes", reply.disk_bytes()},
                    {"device_bytes", reply.device_bytes()},
                    {"seconds", reply.seconds()}});
}

Result<HttpResponse> HandleEvictCorpus(HttpContext& context, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json body, ReadBody(request));
  JsonFields fields(body);
  v1::Request change;
  v1::EvictRequest* const evict = change.mutable_evict();
  evict->set_name(request.name);
  evict->set_from(fields.Text("from"));
  evict->set_dry_run(fields.Flag("dry_run", false));
  if (fields.error()) return ErrorReply(*fields.error());
  ASSIGN_OR_RETURN(const v1::Response response,
                   Perform(context, request.identity, std::move(change)));
  return JsonReply({{"name", request.name},
                    {"blocks", response.evict().blocks()},
                    {"bytes", response.evict().bytes()},
                    {"shared_blocks", response.evict().shared_blocks()}});
}

}  // namespace corpusd
