#include "engine/identity.h"

#include "store/base/sha256.h"

namespace corpusd {
namespace {

// The salt is a secret: the record keeps its digest, which commits to it as well.
std::string SaltDigest(std::string_view salt) {
  Sha256 hash;
  hash.Update(salt);
  return HexText(hash.Finish());
}

}  // namespace

std::vector<IdentityField> CorpusIdentity(const IdentityInputs& inputs, const ModelConfig& config,
                                          const KvFormat& format, std::string_view mode) {
  return {{"schema", "1"},
          {"weights", inputs.weights_digest},
          {"tokenizer", inputs.tokenizer_digest},
          {"architecture", config.Canonical()},
          {"kv_format", format.Canonical()},
          {"mode", std::string(mode)},
          {"tenant", SaltDigest(inputs.tenant_salt)}};
}

}  // namespace corpusd
