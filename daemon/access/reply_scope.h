// daemon/access/reply_scope.h -- responses as a tenant may read them: his corpora under the names
// that he gave them, and of the daemon's figures his own. Handlers leave out what he may not see
// before it is looked at; this takes tenants' names off what they answer, and is the last gate: a
// corpus of another tenant does not pass it. Pure; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/call.h"

namespace corpusd {

// The text without "TENANT/" where a word begins with it.
std::string WithoutTenant(std::string_view text, std::string_view tenant);

// The same status with such a text.
Status ScopeStatus(const Principal& principal, const Status& status);

void ScopeResponse(const Principal& principal, v1::Response* response);

// Scopes what goes through it. The sink itself for an operator.
std::shared_ptr<ResponseSink> ScopedSink(const Principal& principal,
                                         std::shared_ptr<ResponseSink> sink);

}  // namespace corpusd
