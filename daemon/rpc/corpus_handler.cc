#include "daemon/rpc/corpus_handler.h"

#include <string>

#include "client/wire/utf8.h"
#include "daemon/evicted_corpus.h"
#include "daemon/log.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/economics.h"
#include "engine/segment/companions.h"

namespace corpusd {

Status RefuseWhileJobRuns(const Services& services, const std::string& name, const char* verb) {
  const std::optional<JobRecord> job = services.jobs.ActiveJob(name);
  if (!job) return OkStatus();
  const std::string id = std::to_string(job->id);
  return FailedPreconditionError(std::string("cannot ") + verb + " '" + name + "' while job " + id +
                                 " prefills it; wait for it or cancel it: corpusctl cancel " + id);
}

Status CheckGeneration(const CorpusRecord& record, uint64_t wanted) {
  if (wanted == 0 || wanted == record.generation) return OkStatus();
  return {StatusCode::kAborted, "corpus '" + record.name + "' has changed: it is at generation " +
                                    std::to_string(record.generation) + ", the request wants " +
                                    std::to_string(wanted)};
}

v1::Corpus DescribeCorpus(const Services& services, const CorpusRecord& record) {
  return ToMessage(record, services.store.UsageOf(record), services.engine.model(),
                   services.jobs.ActiveJob(record.name), services.now_ms());
}

Result<v1::Response> HandleList(const Services& services, const Principal& principal) {
  v1::Response response;
  v1::ListReply* reply = response.mutable_list();
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    if (!MaySee(principal, record.name)) continue;
    *reply->add_corpora() = DescribeCorpus(services, record);
    // A list is an overview: `show` has the sources, which may be thousands.
    reply->mutable_corpora(reply->corpora_size() - 1)->clear_sources();
  }
  return response;
}

Result<v1::Response> HandleShow(const Services& services, const v1::ShowRequest& request) {
  ASSIGN_OR_RETURN(const CorpusRecord record, services.store.GetCorpus(request.name()));
  v1::Response response;
  *response.mutable_corpus() = DescribeCorpus(services, record);
  *response.mutable_corpus()->mutable_cost() = CostOfCorpus(services, response.corpus());
  const auto dealt = services.store.BytesByShelf(record);
  if (dealt.ok() && !dealt->empty() && dealt->rbegin()->first > 0) {  // a rank's disk is a shelf
    for (uint32_t rank = 0; rank <= dealt->rbegin()->first; ++rank) {
      const auto found = dealt->find(rank);
      response.mutable_corpus()->add_rank_disk_bytes(found == dealt->end() ? 0 : found->second);
    }
  }
  if (record.error.empty()) {
    response.mutable_corpus()->set_error(ToUtf8(EvictedText(services, record)));
  }
  return response;
}

namespace {

// What an update left beside a corpus goes with it.
Status RemoveCompanions(const Services& services, const std::string& name,
                        const std::stop_token& stop) {
  for (const std::string& companion : {UpdateName(name), PreviousName(name)}) {
    RETURN_IF_ERROR(services.jobs.CancelAndWait(companion, stop));
    const Status removed = services.store.RemoveCorpus(companion);
    if (!removed.ok() && removed.code() != StatusCode::kNotFound) return removed;
  }
  return OkStatus();
}

}  // namespace

Result<v1::Response> HandleRemove(const Services& services, const Peer& peer,
                                  const v1::RemoveRequest& request, const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const CorpusRecord record, services.store.GetCorpus(request.name()));
  RETURN_IF_ERROR(CheckGeneration(record, request.if_generation()));
  RETURN_IF_ERROR(CheckMayChangePin(record, peer, services.now_ms()));
  RETURN_IF_ERROR(services.jobs.CancelAndWait(record.name, stop));
  RETURN_IF_ERROR(RemoveCompanions(services, record.name, stop));
  RETURN_IF_ERROR(services.store.RemoveCorpus(record.name));
  Log(LogLevel::kInfo, "corpus_removed", {{"corpus", record.name}});
  v1::Response response;
  response.mutable_empty();
  return response;
}

Result<v1::Response> HandleRename(const Services& services, const v1::RenameRequest& request) {
  RETURN_IF_ERROR(CheckCorpusName(request.to()));
  RETURN_IF_ERROR(RefuseWhileJobRuns(services, request.from(), "rename"));
  RETURN_IF_ERROR(services.store.RenameCorpus(request.from(), request.to()));
  v1::Response response;
  response.mutable_empty();
  return response;
}

namespace {

// A scrub is of all tenants' blocks.
bool MaySeeJob(const Principal& principal, const JobRecord& job) {
  return principal.IsOperator() || (!job.scrub && MaySee(principal, job.corpus));
}

}  // namespace

Result<v1::Response> HandleJobs(const Services& services, const Principal& principal) {
  v1::Response response;
  v1::JobsReply* reply = response.mutable_jobs();
  for (const JobRecord& job : services.jobs.List()) {
    if (MaySeeJob(principal, job)) *reply->add_jobs() = ToMessage(job);
  }
  return response;
}

Status CheckMaySeeJob(const Services& services, const Principal& principal, uint64_t id) {
  const Result<JobRecord> job = services.jobs.Get(id);
  if (!job.ok() || MaySeeJob(principal, *job)) return OkStatus();
  return NotFoundError("job " + std::to_string(id) + " does not exist");
}

Result<v1::Response> HandleJob(const Services& services, const v1::JobRequest& request) {
  ASSIGN_OR_RETURN(const JobRecord job, services.jobs.Get(request.id()));
  v1::Response response;
  *response.mutable_job() = ToMessage(job);
  return response;
}

Result<v1::Response> HandleScrub(const Services& services, const v1::ScrubRequest& request) {
  const uint64_t asked = request.bytes_per_s();
  ASSIGN_OR_RETURN(
      const JobRecord job,
      services.jobs.SubmitScrub(asked != 0 ? asked : services.options.scrub_bytes_per_s));
  v1::Response response;
  *response.mutable_job() = ToMessage(job);
  return response;
}

Result<v1::Response> HandleCancelJob(const Services& services,
                                     const v1::CancelJobRequest& request) {
  ASSIGN_OR_RETURN(const JobRecord job, services.jobs.Cancel(request.id()));
  v1::Response response;
  *response.mutable_job() = ToMessage(job);
  return response;
}

}  // namespace corpusd
