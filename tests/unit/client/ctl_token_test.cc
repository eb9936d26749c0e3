// corpusctl token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

// Needs no daemon. The line's hash is that of salt and token, as daemons check it.
TEST(CtlToken, ATokenIsMadeWithItsLine) {
  const CtlRun run =
      RunCtl({"token", "dash", "--role", "writer", "--tenant", "acme", "-o", "json"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json object = Json::parse(run.out);
  const std::string token = object["token"], line = object["line"];
  EXPECT_THAT(token, ::testing::MatchesRegex("corpusd_[0-9a-f]{64}"));
  ASSERT_THAT(line, ::testing::MatchesRegex("dash:writer:acme:[0-9a-f]{32}:[0-9a-f]{64}"));
  EXPECT_THAT(line, ::testing::Not(HasSubstr(token)));
  const std::string salt = line.substr(17, 32);
  std::string salted;
  for (size_t i = 0; i < salt.size(); i += 2) {
    salted += static_cast<char>(std::stoi(salt.substr(i, 2), nullptr, 16));
  }
  salted += token;
  std::array<unsigned char, 32> hash;
  ASSERT_EQ(EVP_Digest(salted.data(), salted.size(), hash.data(), nullptr, EVP_sha256(), nullptr),
            1);
  std::string hex;
  for (const unsigned char byte : hash) {
    char text[3];
    std::snprintf(text, sizeof text, "%02x", byte);
    hex += text;
  }
  EXPECT_TRUE(line.ends_with(hex));
  const CtlRun other = RunCtl({"token", "dash"});
  EXPECT_THAT(other.out, HasSubstr("dash:reader::"));
  EXPECT_THAT(other.out, ::testing::Not(HasSubstr(token)));
  EXPECT_THAT(other.err, HasSubstr("this once"));
  for (const Words& words :
       {Words{"token"}, Words{"token", "a:b"}, Words{"token", "a/b"},
        Words{"token", "a", "--role", "king"}, Words{"token", "a", "--tenant", "../x"}}) {
    EXPECT_EQ(RunCtl(words).exit_code, 2);
  }
}

}  // namespace
}  // namespace corpusd::ctl
