// daemon/access/tenant_secret.h -- the daemon's own secret: what makes the names of its blocks
// unguessable. Made at the first start, kept in the data folder for its owner alone; without it the
// corpora made with it cannot be served. Not for secrets of users.
#pragma once

#include <string>

#include "store/base/result.h"

namespace corpusd {

// The bytes of DATA_DIR/tenant.secret, which is made, durable, if it is not there.
// kPermissionDenied if others than its owner may read it; kCorruption if it is not what was
// written; kIoError.
Result<std::string> ReadTenantSecret(const std::string& data_dir);

}  // namespace corpusd
