// engine/identity.h -- everything that decides the bytes of a corpus's blocks, as named fields: the
// root of its chain. Two corpora share blocks only if every field is equal. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/kv_format.h"
#include "store/prefix_hash.h"

namespace corpusd {

// The "tenant" of corpora that were made before daemons had a secret: the digest of no salt.
inline constexpr std::string_view kUnsaltedTenant =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// What a tenant's roots have from the daemon's secret: the secret itself for the daemon's own
// tenant, "". Nobody who lacks the secret can tell a tenant's digests.
std::string SaltOf(std::string_view secret, std::string_view tenant);

// The root of what is kept of prompts without a corpus: of one tenant, who has this salt of SaltOf,
// and of the clients that say one cache_salt.
Digest PromptRoot(std::string_view tenant_salt, std::string_view cache_salt);

struct IdentityInputs {
  std::string weights_digest;    // hex SHA-256 of the model file, or of all shards
  std::string tokenizer_digest;  // vocabulary, merges, specials and chat template
  std::string tenant_salt;
  std::string calibration_digest;  // of coded formats; "" for others, which have no such field
};

// The preamble is part of the tokens, so the chain commits to it without a field of its own.
std::vector<IdentityField> CorpusIdentity(const IdentityInputs& inputs, const ModelConfig& config,
                                          const KvFormat& format, std::string_view mode);

}  // namespace corpusd
