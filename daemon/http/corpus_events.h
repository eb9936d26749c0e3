// daemon/http/corpus_events.h -- GET /v1/corpora/NAME/events: the prefill of a corpus as it moves,
// as server-sent events. Each event is the whole job, so none that was missed is missing: a client
// that comes back with Last-Event-ID gets what is new, also after a restart of the daemon, and 204
// when it has seen the end.
#pragma once

#include <memory>
#include <string>

#include "daemon/http/exchange.h"
#include "daemon/http/http_context.h"
#include "daemon/jobs/job_record.h"

namespace corpusd {

void AnswerCorpusEvents(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange);

// "12-running-4096": equal for equal states of the job.
std::string JobEventId(const JobRecord& job);

}  // namespace corpusd
