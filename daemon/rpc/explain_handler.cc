#include "daemon/rpc/explain_handler.h"

#include <algorithm>
#include <optional>
#include <string>

#include "client/wire/utf8.h"
#include "engine/identity.h"
#include "store/base/sha256.h"
#include "store/corpus_chain.h"
#include "store/miss_explain_tenant.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

std::string Sha256Text(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return HexText(hash.Finish());
}

void Fill(const MissReport& report, v1::ExplainMissReply* reply) {
  reply->set_blocks(report.blocks);
  reply->set_present(report.present);
  reply->set_reason(std::string(MissReasonText(report.reason())));
  for (const MissRun& run : report.runs) {
    v1::MissRun* out = reply->add_runs();
    out->set_first_block(run.first_block);
    out->set_blocks(run.blocks);
    out->set_reason(std::string(MissReasonText(run.reason)));
    out->set_when_ms(run.when_ms);
    out->set_detail(ToUtf8(run.detail));
  }
  reply->set_other_corpus(report.other_corpus);
  for (const FieldDifference& difference : report.differences) {
    v1::FieldDifference* out = reply->add_differences();
    out->set_field(difference.field);
    out->set_stored(difference.stored);
    out->set_asked(difference.asked);
  }
}

}  // namespace

Result<v1::Response> HandleExplainMiss(const Services& services, const Principal& principal,
                                       const v1::ExplainMissRequest& request) {
  std::vector<TokenId> tokens;
  MissQuestion question;
  CorpusRecord record;
  CorpusShape shape;
  if (request.name().empty()) {
    ASSIGN_OR_RETURN(shape, services.engine.ShapeOf(request.kv_format(), {}, principal.tenant));
    ASSIGN_OR_RETURN(const auto tokenizer,
                     services.engine.NewCorpusTokenizer(request.preamble(), false, 0));
    tokenizer->BeginSource("text");
    tokenizer->Append(request.text());
    tokenizer->EndSource();
    tokens = tokenizer->TakeTokens();
    question.identity = shape.identity;
    question.text_sha256 = Sha256Text(request.text());
  } else {
    ASSIGN_OR_RETURN(record, services.store.GetCorpus(request.name()));
    ASSIGN_OR_RETURN(
        shape, services.engine.ShapeOf(record.kv_format, record.segments, TenantOf(record.name)));
    ASSIGN_OR_RETURN(tokens, services.store.CorpusTokens(request.name()));
    // As the corpus was made: if this daemon's model is another, its questions are refused with the
    // fields, but its blocks are where they are.
    question.identity = record.identity;
  }
  if (tokens.empty()) return InvalidArgumentError("there is no text to explain");
  question.tokens = tokens;
  question.block_tokens = shape.block_tokens;
  std::optional<CorpusChain> segments;
  if (record.segments.window_tokens > 0) {
    RETURN_IF_ERROR(CheckSegmented(record, shape.block_tokens));
    question.chain = &segments.emplace(record, shape.block_tokens);
  }
  ASSIGN_OR_RETURN(const MissReport report,
                   principal.IsOperator()
                       ? ExplainMiss(services.store, question)
                       : ExplainMissTo(principal.tenant, services.store, question));
  v1::Response response;
  v1::ExplainMissReply* reply = response.mutable_explain_miss();
  reply->set_name(request.name());
  reply->set_tokens(tokens.size());
  Fill(report, reply);
  // Corpora that were made before daemons had a secret are served as they are.
  for (IdentityField& field : shape.identity) {
    const bool unsalted =
        std::find(record.identity.begin(), record.identity.end(),
                  IdentityField{"tenant", std::string(kUnsaltedTenant)}) != record.identity.end();
    if (field.name == "tenant" && unsalted && TenantOf(record.name).empty()) {
      field.value = kUnsaltedTenant;
    }
  }
  const std::string mismatch =
      request.name().empty() ? "" : DescribeIdentityMismatch(record.identity, shape.identity);
  if (!mismatch.empty()) reply->set_not_served(mismatch);
  return response;
}

}  // namespace corpusd
