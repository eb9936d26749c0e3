#include "daemon/http/corpus_events.h"

#include <optional>
#include <utility>

#include "client/wire/object_json.h"
#include "daemon/access/reply_scope.h"
#include "daemon/http/api_error.h"
#include "daemon/http/json_text.h"
#include "daemon/http/perform.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/rpc/corpus_message.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr std::string_view kRoute = "/v1/corpora/{name}/events";

// The unfinished job of a corpus, else its last one.
std::optional<JobRecord> JobOf(const Services& services, const std::string& corpus,
                               uint64_t active) {
  if (active != 0) {
    const auto job = services.jobs.Get(active);
    if (job.ok()) return *job;
  }
  std::optional<JobRecord> last;
  for (JobRecord& job : services.jobs.List()) {
    if (job.corpus == corpus) last = std::move(job);
  }
  return last;
}

// corpus: as the client calls it.
std::string Event(const JobRecord& job, const std::string& corpus) {
  v1::Job message = ToMessage(job);
  message.set_corpus(corpus);
  message.set_error(WithoutTenant(message.error(), TenantOf(job.corpus)));
  return "id: " + JobEventId(job) + "\nevent: job\n" + SseData(JsonText(JobToJson(message)));
}

}  // namespace

std::string JobEventId(const JobRecord& job) {
  return std::to_string(job.id) + "-" + std::string(JobStateText(job.state)) + "-" +
         std::to_string(job.done_tokens);
}

void AnswerCorpusEvents(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange) {
  const Services& services = context.services();
  const HttpRequest& request = exchange->request();
  v1::Request show;
  show.mutable_show()->set_name(request.name);
  const auto shown = Perform(context, request.identity, std::move(show));
  if (!shown.ok()) return context.Send(*exchange, kRoute, ErrorReply(shown.status()));
  const auto whole = WholeName(context, request.identity, request.name);
  if (!whole.ok()) return context.Send(*exchange, kRoute, ErrorReply(whole.status()));
  const std::optional<JobRecord> job = JobOf(services, *whole, shown->corpus().job_id());
  const std::string* const last = request.Header("Last-Event-ID");
  const bool seen_all =
      job && last != nullptr && IsFinished(job->state) && *last == JobEventId(*job);
  HttpResponse head;
  if (!job || seen_all) {
    head.status = 204;
    return context.Send(*exchange, kRoute, std::move(head));
  }
  services.metrics.OnRequest("http", kRoute, StatusCode::kOk);
  head.content_type = "text/event-stream; charset=utf-8";
  exchange->BeginStream(std::move(head));
  // Called with the queue locked: it hands the event on and no more.
  const auto watcher = [exchange, name = request.name, seen = last == nullptr ? "" : *last,
                        &services](const JobRecord& now) mutable {
    const std::string id = JobEventId(now);
    if (id != seen) exchange->SendPiece(Event(now, name));
    seen = id;
    if (IsFinished(now.state) || services.stopping) exchange->EndStream();
  };
  const Result<uint64_t> watch = services.jobs.Watch(job->id, watcher);
  if (!watch.ok()) {  // pruned since
    exchange->SendPiece(Event(*job, request.name));
    return exchange->EndStream();
  }
  exchange->OnStop(
      [&jobs = services.jobs, id = *watch, weak = std::weak_ptr(exchange)](const Status& /*why*/) {
        jobs.Unwatch(id);
        if (const auto watching = weak.lock()) watching->EndStream();
      });
}

}  // namespace corpusd
