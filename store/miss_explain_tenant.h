// store/miss_explain_tenant.h -- why blocks are not there, told to somebody of one tenant: what
// other tenants have, or had, is to him as if it had never been. Any thread.
#pragma once

#include <string_view>

#include "store/miss_explain.h"

namespace corpusd {

// REQUIRES: question.identity is of the tenant.
Result<MissReport> ExplainMissTo(std::string_view tenant, const BlockStore& store,
                                 const MissQuestion& question);

}  // namespace corpusd
