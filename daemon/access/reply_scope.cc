#include "daemon/access/reply_scope.h"

#include <cctype>
#include <utility>

namespace corpusd {
namespace {

// Whether a word may begin behind this character: a path's part or a longer name does not.
bool EndsWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '/' && c != '_' && c != '-' &&
         c != '.';
}

class Scope {
 public:
  explicit Scope(const Principal& principal) : principal_(principal) {}

  void Text(std::string* text) const { *text = WithoutTenant(*text, principal_.tenant); }

  void Corpus(v1::Corpus* corpus) const {
    if (!MaySee(principal_, corpus->name())) return corpus->Clear();
    Text(corpus->mutable_name());
    Text(corpus->mutable_replaces());
    Text(corpus->mutable_pin_owner());
    Text(corpus->mutable_error());
  }

  void Job(v1::Job* job) const {
    // A scrub is of all tenants' blocks.
    if (job->corpus().empty() || !MaySee(principal_, job->corpus())) return job->Clear();
    Text(job->mutable_corpus());
    Text(job->mutable_error());
  }

  template <typename Messages, typename Names>
  void Drop(Messages* messages, const Names& name_of) const {
    for (int i = messages->size(); i-- > 0;) {
      if (!MaySee(principal_, name_of(messages->Get(i)))) messages->DeleteSubrange(i, 1);
    }
  }

  void List(google::protobuf::RepeatedPtrField<v1::Corpus>* corpora) const {
    Drop(corpora, [](const v1::Corpus& corpus) { return corpus.name(); });
    for (v1::Corpus& corpus : *corpora) Corpus(&corpus);
  }

  void Evict(v1::EvictReply* reply) const {
    Drop(reply->mutable_steps(), [](const v1::EvictStep& step) { return step.corpus(); });
    for (v1::EvictStep& step : *reply->mutable_steps()) Text(step.mutable_corpus());
  }

  void Explain(v1::ExplainMissReply* reply) const {
    Text(reply->mutable_name());
    Text(reply->mutable_other_corpus());
    for (v1::MissRun& run : *reply->mutable_runs()) Text(run.mutable_detail());
  }

 private:
  const Principal& principal_;
};

class Scoping : public ResponseSink {
 public:
  Scoping(Principal principal, std::shared_ptr<ResponseSink> sink)
      : principal_(std::move(principal)), sink_(std::move(sink)) {}

  bool Send(const v1::Response& response) override {
    // Pieces of answers and of bundles name nothing, and are many.
    if (response.has_ask_delta() || response.has_export_data()) return sink_->Send(response);
    v1::Response scoped = response;
    ScopeResponse(principal_, &scoped);
    return sink_->Send(scoped);
  }

 private:
  const Principal principal_;
  const std::shared_ptr<ResponseSink> sink_;
};

}  // namespace

std::string WithoutTenant(std::string_view text, std::string_view tenant) {
  if (tenant.empty()) return std::string(text);
  const std::string prefix = std::string(tenant) + "/";
  std::string out;
  size_t begin = 0;
  for (size_t at = text.find(prefix); at != std::string_view::npos;
       at = text.find(prefix, at + prefix.size())) {
    if (at != 0 && !EndsWord(text[at - 1])) continue;
    out.append(text, begin, at - begin);
    begin = at + prefix.size();
  }
  out.append(text.substr(begin));
  return out;
}

Status ScopeStatus(const Principal& principal, const Status& status) {
  if (status.ok() || principal.IsOperator()) return status;
  return {status.code(), WithoutTenant(status.message(), principal.tenant)};
}

void ScopeResponse(const Principal& principal, v1::Response* response) {
  if (principal.IsOperator()) return;
  const Scope scope(principal);
  if (response->has_error()) scope.Text(response->mutable_error()->mutable_message());
  switch (response->body_case()) {
    case v1::Response::kIngest:
      scope.Job(response->mutable_ingest()->mutable_job());
      return scope.Corpus(response->mutable_ingest()->mutable_corpus());
    case v1::Response::kList:
      return scope.List(response->mutable_list()->mutable_corpora());
    case v1::Response::kCorpus:
      return scope.Corpus(response->mutable_corpus());
    case v1::Response::kEvict:
      return scope.Evict(response->mutable_evict());
    case v1::Response::kJobs:
      for (v1::Job& job : *response->mutable_jobs()->mutable_jobs()) scope.Job(&job);
      return;
    case v1::Response::kJob:
      return scope.Job(response->mutable_job());
    case v1::Response::kDiskUsage:
      for (v1::PinHolder& holder : *response->mutable_disk_usage()->mutable_pin_holders()) {
        scope.Text(holder.mutable_owner());
      }
      return scope.List(response->mutable_disk_usage()->mutable_corpora());
    case v1::Response::kImportReply:
      return scope.Corpus(response->mutable_import_reply()->mutable_corpus());
    case v1::Response::kExplainMiss:
      return scope.Explain(response->mutable_explain_miss());
    default:
      return;
  }
}

std::shared_ptr<ResponseSink> ScopedSink(const Principal& principal,
                                         std::shared_ptr<ResponseSink> sink) {
  if (principal.IsOperator()) return sink;
  return std::make_shared<Scoping>(principal, std::move(sink));
}

}  // namespace corpusd
