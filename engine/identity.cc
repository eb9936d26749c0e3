#include "engine/identity.h"

#include "engine/kv/sink_page.h"
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

std::string SaltOf(std::string_view secret, std::string_view tenant) {
  if (tenant.empty()) return std::string(secret);
  // The secret's size is fixed, and nothing follows the tenant: no two pairs are one text.
  Sha256 hash;
  hash.Update("corpusd tenant salt 1");
  hash.Update(std::to_string(secret.size()) + ":");
  hash.Update(secret);
  hash.Update(tenant);
  return HexText(hash.Finish());
}

Digest PromptRoot(std::string_view tenant_salt, std::string_view cache_salt) {
  return ChainRoot(std::vector<IdentityField>{{"schema", "prompt 1"},
                                              {"tenant", std::string(tenant_salt)},
                                              {"cache_salt", std::string(cache_salt)}});
}

std::vector<IdentityField> CorpusIdentity(const IdentityInputs& inputs, const ModelConfig& config,
                                          const KvFormat& format, std::string_view mode) {
  std::vector<IdentityField> fields = {{"schema", "1"},
                                       {"weights", inputs.weights_digest},
                                       {"tokenizer", inputs.tokenizer_digest},
                                       {"architecture", config.Canonical()},
                                       {"kv_format", format.Canonical()},
                                       {"mode", std::string(mode)},
                                       {"tenant", SaltDigest(inputs.tenant_salt)}};
  if (!inputs.calibration_digest.empty()) {
    fields.push_back({"kv_calibration", inputs.calibration_digest});
    fields.push_back({"kv_sinks", std::to_string(kSinkTokens)});
  }
  if (const auto parts = LayerPartsOf(config); parts != nullptr) {
    std::string text;
    for (const LayerPart& part : parts->parts) {
      text += (text.empty() ? "" : ",") + part.kind + "x" + std::to_string(part.layers);
    }
    fields.push_back({"kv_parts", text});
  }
  return fields;
}

}  // namespace corpusd
