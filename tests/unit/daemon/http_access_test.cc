// Roles, tenants and bearer tokens over HTTP.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "store/base/sha256.h"
#include "tests/unit/daemon/http_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HttpAccessTest : public HttpTest {
 protected:
  // Tokens "corpusd_r" (reader), "corpusd_w" (writer) and "corpusd_g" (writer of globex).
  void StartWithTable() {
    options_.access_path = folder_ + "/access.toml";
    options_.disk_bytes = uint64_t{1} << 30;
    std::ofstream(options_.access_path)
        << "tokens = \"tokens\"\n[users]\n\"uid:54001\" = \"writer:acme\"\n"
           "[tenants]\nacme = \"0\"\nglobex = \"0\"\n";
    std::ofstream tokens(folder_ + "/tokens");
    for (const std::string line : {"r:reader:", "w:writer:", "g:writer:globex"}) {
      Sha256 hash;
      hash.Update(std::string(8, '\x11'));
      hash.Update("corpusd_" + line.substr(0, 1));
      tokens << line << ":1111111111111111:" << HexText(hash.Finish()) << "\n";
    }
    tokens.close();
    ASSERT_EQ(chmod((folder_ + "/tokens").c_str(), 0600), 0);
    peer_of_ = [](int) {
      Peer peer;
      peer.known = true;
      peer.uid = 54001;
      peer.gid = 154001;
      return peer;
    };
    StartDaemon();
  }
  static std::string Bearer(const std::string& token) {
    return "Authorization: Bearer " + token + "\r\n";
  }
  HttpReply Over(const std::string& address, const std::string& method, const std::string& path,
                 const std::string& headers, const std::string& body = "") {
    return HttpClient(address).Send(method, path, body, headers);
  }
  void Make(const std::string& address, const std::string& name, const std::string& headers) {
    const Json body = {{"name", name}, {"contents", "some text"}};
    const HttpReply made = Over(address, "POST", "/v1/corpora", headers, body.dump());
    ASSERT_EQ(made.status, 202) << made.body;
    WaitFor("the corpus", [&] {
      return Parse(Over(address, "GET", "/v1/corpora/" + name, headers).body)["state"] == "ready";
    });
  }
};

TEST_F(HttpAccessTest, TcpTakesAToken) {
  StartWithTable();
  for (const std::string& headers :
       {std::string(), Bearer("corpusd_x"), Bearer("sk-none"), Bearer(""),
        std::string("Authorization: Basic Y29ycHVzZF93\r\n")}) {
    for (const char* const path : {"/v1/corpora", "/v1/models", "/props"}) {
      const HttpReply refused = Over(tcp_address(), "GET", path, headers);
      EXPECT_EQ(refused.status, 401) << path << headers;
      EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
      EXPECT_EQ(Parse(refused.body)["error"]["code"], "invalid_api_key");
      EXPECT_EQ(Parse(refused.body)["error"]["type"], "authentication_error");
      EXPECT_THAT(refused.body, Not(HasSubstr("corpusd_x")));
    }
  }
  EXPECT_EQ(Over(tcp_address(), "GET", "/livez", "").status, 200);
  EXPECT_EQ(Over(tcp_address(), "GET", "/v1/corpora", Bearer("corpusd_r")).status, 200);
  EXPECT_EQ(
      Over(tcp_address(), "GET", "/v1/corpora", "authorization: bEARER   corpusd_r\r\n").status,
      200);
}

TEST_F(HttpAccessTest, PromptsWithoutACorpusAreTheirTenants) {
  StartWithTable();
  const auto tenant_of = [&](const std::string& address, const std::string& headers) {
    const std::string body =
        R"({"messages": [{"role": "user", "content": "q"}], "tenant": "acme"})";
    EXPECT_EQ(Over(address, "POST", "/v1/chat/completions", headers, body).status, 200);
    return controls_.last_question.tenant;
  };
  EXPECT_EQ(tenant_of(tcp_address(), Bearer("corpusd_g")), "globex");
  EXPECT_EQ(tenant_of(tcp_address(), Bearer("corpusd_r")), "");
  EXPECT_EQ(tenant_of(unix_address(), ""), "acme");
  v1::AskRequest ask;
  ask.set_question("q");
  ASSERT_TRUE(Connect()->Ask(ask, nullptr).ok());
  EXPECT_EQ(controls_.last_question.tenant, "acme");
}

TEST_F(HttpAccessTest, RolesAndTenantsHoldAsOverTheSocket) {
  StartWithTable();
  Make(tcp_address(), "docs", Bearer("corpusd_w"));
  Make(tcp_address(), "docs", Bearer("corpusd_g"));
  Make(unix_address(), "secret", "");  // acme's, by the peer
  const Json ask = {{"model", "fake@docs"},
                    {"messages", {{{"role", "user"}, {"content", "q"}}}},
                    {"max_tokens", 2}};
  const auto as = [&](const std::string& token, const std::string& method, const std::string& path,
                      const std::string& body = "") {
    return Over(tcp_address(), method, path, Bearer(token), body);
  };
  EXPECT_EQ(as("corpusd_r", "GET", "/v1/corpora/docs").status, 200);
  EXPECT_EQ(as("corpusd_r", "DELETE", "/v1/corpora/docs").status, 403);
  EXPECT_EQ(as("corpusd_r", "POST", "/v1/corpora/docs/pin").status, 403);
  EXPECT_EQ(as("corpusd_r", "POST", "/v1/corpora", R"({"name":"x","contents":"y"})").status, 403);
  EXPECT_EQ(as("corpusd_r", "POST", "/v1/chat/completions", ask.dump()).status, 200);
  for (const char* const token : {"corpusd_w", "corpusd_g"}) {
    EXPECT_EQ(as(token, "GET", "/v1/corpora/secret").status, 404);
    EXPECT_EQ(as(token, "GET", "/v1/corpora/secret/events").status, 404);
    EXPECT_EQ(as(token, "DELETE", "/v1/corpora/secret").status, 404);
    EXPECT_EQ(as(token, "POST", "/v1/corpora/secret/evict").status, 404);
    Json other = ask;
    for (const char* const model : {"fake@secret", "fake@acme/secret"}) {
      other["model"] = model;
      EXPECT_EQ(as(token, "POST", "/v1/chat/completions", other.dump()).status, 404) << model;
    }
    const HttpReply list = as(token, "GET", "/v1/corpora");
    EXPECT_EQ(Parse(list.body)["data"].size(), 1u);
    const std::string all = list.body + as(token, "GET", "/v1/models").body +
                            as(token, "GET", "/v1/corpora/docs/events").body;
    EXPECT_THAT(all, Not(HasSubstr("secret")));
    EXPECT_THAT(all, Not(HasSubstr("globex")));
  }
  EXPECT_EQ(as("corpusd_g", "DELETE", "/v1/corpora/docs").status, 200);
  EXPECT_EQ(as("corpusd_w", "GET", "/v1/corpora/docs").status, 200) << "of the same name";
  // Over the Unix socket the kernel says who it is, whatever key a client makes up; a token of this
  // daemon's goes before it.
  EXPECT_EQ(Over(unix_address(), "GET", "/v1/corpora/secret", Bearer("sk-none")).status, 200);
  EXPECT_EQ(Over(unix_address(), "GET", "/v1/corpora/secret", Bearer("corpusd_w")).status, 404);
  EXPECT_EQ(Over(unix_address(), "GET", "/v1/corpora/secret", Bearer("corpusd_x")).status, 401);
}

TEST_F(HttpAccessTest, WithoutATableKeysAreNotLookedAt) {
  StartDaemon();
  for (const std::string& address : {tcp_address(), unix_address()}) {
    EXPECT_EQ(Over(address, "GET", "/v1/corpora", Bearer("sk-none")).status, 200);
    EXPECT_EQ(Over(address, "GET", "/v1/corpora", "").status, 200);
  }
}

}  // namespace
}  // namespace corpusd
