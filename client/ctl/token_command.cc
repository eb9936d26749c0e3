#include <openssl/evp.h>
#include <sys/random.h>

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"

namespace corpusd::ctl {
namespace {

constexpr size_t kTokenBytes = 32, kSaltBytes = 16;
// So that those who look for leaked secrets know one.
constexpr std::string_view kTokenPrefix = "corpusd_";

std::string Hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

// Asks no daemon: what it prints is for the daemon's file of tokens.
int RunToken(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  std::array<uint8_t, kTokenBytes + kSaltBytes> random;
  if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return Fail(context, {0, "random", "the system gives no random bytes"});
  }
  const auto bytes = std::span<const uint8_t>(random);
  const std::string token = std::string(kTokenPrefix) + Hex(bytes.first(kTokenBytes));
  const auto salt = bytes.subspan(kTokenBytes);
  std::string salted(salt.begin(), salt.end());
  salted += token;
  std::array<uint8_t, 32> hash;
  if (EVP_Digest(salted.data(), salted.size(), hash.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    return Fail(context, {0, "hash", "OpenSSL has no SHA-256"});
  }
  const std::string line = arguments.name + ":" + arguments.role + ":" + arguments.tenant + ":" +
                           Hex(salt) + ":" + Hex(hash);
  if (IsStructured(arguments.output)) {
    PrintStructured(context.console.out, arguments.output, {{"token", token}, {"line", line}});
    return kExitOk;
  }
  PrintFields(context.console.out, {{"token", token}, {"line", line}}, StyleOf(context));
  Note(context,
       "the token is shown this once: give it to its user, and put the line into the "
       "file that the daemon's access table names");
  return kExitOk;
}

}  // namespace corpusd::ctl
