#include "daemon/rpc/plan_handler.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "daemon/rpc/economics.h"

namespace corpusd {
namespace {

constexpr size_t kSampleBytesMax = size_t{4} << 20;

// The widest first, then the default if it is another. What the model's heads do not allow is left
// out of a plan.
constexpr std::array<const char*, 5> kFormats = {"bf16", "cq8", "cq4", "cq3", "cq2"};

constexpr int kRankCountsMax = 16;
constexpr uint32_t kRanksMax = 4096;
constexpr uint64_t kPlannedTokensMax = uint64_t{1} << 32;

Status PlanRanks(const Services& services, const v1::PlanRequest& request, v1::PlanReply* reply) {
  if (request.ranks_size() > kRankCountsMax || request.tokens() > kPlannedTokensMax) {
    return InvalidArgumentError("a plan has at most " + std::to_string(kRankCountsMax) +
                                " numbers of ranks and " + std::to_string(kPlannedTokensMax) +
                                " tokens");
  }
  for (const uint32_t ranks : request.ranks()) {
    if (ranks == 0 || ranks > kRanksMax) {
      return InvalidArgumentError("ranks must be from 1 to " + std::to_string(kRanksMax));
    }
    ASSIGN_OR_RETURN(const RankTimes times, services.engine.PlanRanks(ranks, request.tokens(),
                                                                      request.link_bytes_per_s()));
    v1::PlanRanks& out = *reply->add_ranks();
    out.set_ranks(ranks);
    out.set_seconds(times.seconds);
    out.set_waiting_seconds(times.waiting_seconds);
    out.set_efficiency(times.efficiency);
    out.set_attention_flop_per_s(kMeasuredRates.attention_flop_s);
    out.set_linear_flop_per_s(kMeasuredRates.linear_flop_s);
    out.set_link_bytes_per_s(request.link_bytes_per_s() > 0 ? request.link_bytes_per_s()
                                                            : kMeasuredRates.link_bytes_s);
    out.set_measured_on(std::string(kMeasuredDevice));
  }
  return OkStatus();
}

}  // namespace

Result<v1::Response> HandlePlan(const Services& services, const v1::PlanRequest& request) {
  if (request.sample().size() > kSampleBytesMax) {
    return InvalidArgumentError("a sample has at most " + std::to_string(kSampleBytesMax) +
                                " bytes, this one " + std::to_string(request.sample().size()));
  }
  v1::Response response;
  v1::PlanReply& reply = *response.mutable_plan();
  ASSIGN_OR_RETURN(const auto tokenizer,
                   services.engine.NewCorpusTokenizer(request.preamble(), false, 0));
  reply.set_preamble_tokens(tokenizer->tokens());
  tokenizer->BeginSource("sample");
  tokenizer->Append(request.sample());
  tokenizer->EndSource();
  reply.set_sample_tokens(tokenizer->tokens() - reply.preamble_tokens());

  ASSIGN_OR_RETURN(const CorpusShape usual, services.engine.ShapeOf(""));
  reply.set_default_format(usual.kv_format);
  reply.set_block_tokens(usual.block_tokens);
  reply.set_exact_tokens_max(usual.tokens_max);
  std::vector<std::string> names(kFormats.begin(), kFormats.end());
  const bool known = std::find(names.begin(), names.end(), usual.kv_format) != names.end();
  if (!known) names.push_back(usual.kv_format);
  for (const std::string& name : names) {
    const Result<CorpusShape> shape = services.engine.ShapeOf(name);
    if (!shape.ok()) continue;
    v1::PlanFormat& format = *reply.add_formats();
    format.set_name(name);
    format.set_block_bytes(shape->block_bytes);
    for (const CorpusPart& part : shape->parts) {
      v1::PlanPart& out = *format.add_parts();
      out.set_kind(part.kind);
      out.set_block_bytes(part.block_bytes);
      out.set_blocks_max(part.blocks_max);
    }
  }
  const ModelSummary& model = services.engine.model();
  reply.set_model_name(model.name);
  reply.set_model_digest(model.digest);
  reply.set_context_tokens(model.context_tokens);
  *reply.mutable_economics() = EconomicsOf(services);
  RETURN_IF_ERROR(PlanRanks(services, request, &reply));
  return response;
}

}  // namespace corpusd
