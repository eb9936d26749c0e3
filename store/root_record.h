// store/root_record.h -- root records as bytes: the identities that corpora were ever made with,
// kept so that a miss can say which field of an identity differs. Format in FORMAT.md. Pure; any
// thread.
#pragma once

#include <string>
#include <string_view>

#include "store/base/result.h"
#include "store/miss_explain.h"

namespace corpusd {

std::string EncodeRoot(const RootRecord& root);
// kCorruption for what no EncodeRoot made, and for a root that its identity does not give.
Result<RootRecord> DecodeRoot(std::string_view bytes);

}  // namespace corpusd
