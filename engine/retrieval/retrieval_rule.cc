#include "engine/retrieval/retrieval_rule.h"

namespace corpusd {

Result<RetrievalPolicy> ParseRetrievalPolicy(std::string_view name) {
  if (name.empty()) return RetrievalPolicy::kFused;
  for (const RetrievalPolicy policy :
       {RetrievalPolicy::kFused, RetrievalPolicy::kHeads, RetrievalPolicy::kLexical}) {
    if (name == RetrievalPolicyName(policy)) return policy;
  }
  return InvalidArgumentError("retrieval '" + std::string(name) +
                              "' is not known: fused, heads and lexical are");
}

std::string_view RetrievalPolicyName(RetrievalPolicy policy) {
  switch (policy) {
    case RetrievalPolicy::kHeads:
      return "heads";
    case RetrievalPolicy::kLexical:
      return "lexical";
    default:
      return "fused";
  }
}

}  // namespace corpusd
