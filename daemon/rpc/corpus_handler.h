// daemon/rpc/corpus_handler.h -- the short verbs on corpora and jobs: plain functions from request
// to response. They may wait for the disk, so they run on a worker, never on the I/O thread.
#pragma once

#include <stop_token>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"

namespace corpusd {

// Whoever sees all, where the caller scopes what he is answered (daemon/access/reply_scope.h).
inline const Principal kSeesAll{"", "", Role::kAdmin};

Result<v1::Response> HandleList(const Services& services, const Principal& principal = kSeesAll);
Result<v1::Response> HandleShow(const Services& services, const v1::ShowRequest& request);
// Cancels the corpus's job and waits for its end first. kPermissionDenied if someone else has
// pinned it.
Result<v1::Response> HandleRemove(const Services& services, const Peer& peer,
                                  const v1::RemoveRequest& request, const std::stop_token& stop);
Result<v1::Response> HandleRename(const Services& services, const v1::RenameRequest& request);
Result<v1::Response> HandleJobs(const Services& services, const Principal& principal = kSeesAll);
// kNotFound if the principal may not see it, in the words for one that there is not.
Status CheckMaySeeJob(const Services& services, const Principal& principal, uint64_t id);
Result<v1::Response> HandleJob(const Services& services, const v1::JobRequest& request);
Result<v1::Response> HandleScrub(const Services& services, const v1::ScrubRequest& request);
Result<v1::Response> HandleCancelJob(const Services& services, const v1::CancelJobRequest& request);

// kFailedPrecondition, naming the job, while one works on the corpus; verb: what was asked.
Status RefuseWhileJobRuns(const Services& services, const std::string& name, const char* verb);

// kAborted if a request wants another generation of the corpus than there is; 0: any.
Status CheckGeneration(const CorpusRecord& record, uint64_t wanted);

// The corpus as show gives it.
v1::Corpus DescribeCorpus(const Services& services, const CorpusRecord& record);

}  // namespace corpusd
