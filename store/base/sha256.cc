#include "store/base/sha256.h"

#include <openssl/evp.h>

#include "store/base/check.h"

namespace corpusd {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  // Fetched once: looking the algorithm up costs more than hashing a block's tokens.
  static const EVP_MD* const kAlgorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  CHECK(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, kAlgorithm, nullptr) == 1)
      << "OpenSSL has no SHA-256";
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1) << "SHA-256 update";
}

Sha256Bytes Sha256::Finish() {
  Sha256Bytes digest;
  CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), nullptr) == 1) << "SHA-256 finish";
  return digest;
}

std::string HexText(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const uint8_t b : bytes) {
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

}  // namespace corpusd
