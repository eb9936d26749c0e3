// What HTTP does is counted as the socket's requests are: connections, requests by route, errors;
// and its own routes tell how the daemon is.
#include <gmock/gmock.h>

#include "daemon/metrics/exposition.h"
#include "tests/unit/daemon/http_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class HttpMetricsTest : public HttpTest {
 protected:
  HttpMetricsTest() { StartDaemon(); }
  // As a scraper sees them.
  std::string Metrics() { return HttpClient(tcp_address()).Get("/metrics").body; }
  // Of the line "corpusd_NAME{LABELS} VALUE"; -1: there is none.
  double Value(const std::string& name_and_labels) {
    const std::string text = Metrics();
    const std::string line = "corpusd_" + name_and_labels + " ";
    const size_t at = text.find("\n" + line);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + 1 + line.size()));
  }
  static std::string Requests(const std::string& method, const std::string& code) {
    return "requests_total{code=\"" + code + "\",method=\"" + method + "\",surface=\"http\"}";
  }
};

TEST_F(HttpMetricsTest, RequestsAreCountedByRouteAndResult) {
  MakeCorpus("a");
  HttpClient client(unix_address());
  const std::string chat = R"({"model":"fake@a","messages":[{"role":"user","content":"q"}]})";
  for (int i = 0; i < 2; ++i) ASSERT_EQ(client.Post("/v1/chat/completions", chat).status, 200);
  const std::string nobody = R"({"model":"fake@b","messages":[{"role":"user","content":"q"}]})";
  ASSERT_EQ(client.Post("/v1/chat/completions", nobody).status, 404);
  ASSERT_EQ(client.Get("/v1/corpora/a").status, 200);
  ASSERT_EQ(client.Get("/v1/corpora/b").status, 404);
  ASSERT_EQ(client.Get("/livez").status, 200);
  EXPECT_EQ(Value(Requests("/v1/chat/completions", "ok")), 2);
  EXPECT_EQ(Value(Requests("/v1/chat/completions", "not_found")), 1);
  EXPECT_EQ(Value(Requests("/v1/corpora/{name}", "ok")), 1);
  EXPECT_EQ(Value(Requests("/v1/corpora/{name}", "not_found")), 1);
  EXPECT_EQ(Value(Requests("/livez", "ok")), 1);
  EXPECT_EQ(Value("errors_total{code=\"not_found\"}"), 2);
  EXPECT_EQ(Value("questions_total{result=\"length\"}"), 2);
  EXPECT_EQ(Value("first_token_seconds_count"), 2);
}

TEST_F(HttpMetricsTest, WhatIsRefusedBeforeItsRouteIsCountedToo) {
  HttpClient client(unix_address());
  ASSERT_EQ(client.Get("/no/such/route").status, 404);
  ASSERT_EQ(client.Send("DELETE", "/v1/models", "").status, 405);
  ASSERT_EQ(client.Post("/v1/chat/completions", "{").status, 400);
  EXPECT_EQ(Value(Requests("none", "not_found")), 1) << "never a path: it would be a series each";
  EXPECT_EQ(Value(Requests("none", "invalid_argument")), 1);
  EXPECT_EQ(Value(Requests("/v1/chat/completions", "invalid_argument")), 1);
}

TEST_F(HttpMetricsTest, ClientsComeAndGo) {
  const double before = Value("connections_total{surface=\"http\"}");
  {
    HttpClient one(unix_address());
    HttpClient other(tcp_address());
    ASSERT_EQ(one.Get("/livez").status, 200);
    ASSERT_EQ(other.Get("/livez").status, 200);
    // The scraper is one, too.
    EXPECT_GE(Value("connections{surface=\"http\"}"), 3);
  }
  WaitFor("them to go", [&] { return Value("connections{surface=\"http\"}") == 1; });
  EXPECT_GE(Value("connections_total{surface=\"http\"}"), before + 3);
  EXPECT_EQ(Value("connections_refused_total{surface=\"http\"}"), 0);
}

TEST_F(HttpMetricsTest, ReadinessTellsWhatIsDegraded) {
  const Json ready = Parse(HttpClient(tcp_address()).Get("/readyz").body);
  EXPECT_EQ(ready["degraded"], Json::array({"store: a fake"})) << "what the fake store always says";
  EXPECT_GT(ready["checks"].size(), 5u);
  StopDaemon();
  {
    std::lock_guard lock(disk_->mutex);
    disk_->full = true;
  }
  StartDaemon();
  (void)Ingest(*Connect(), "b", "text");  // finds out
  HttpClient client(tcp_address());
  const HttpReply reply = client.Get("/readyz");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(Parse(reply.body)["status"], "degraded") << reply.body;
  EXPECT_THAT(Parse(reply.body)["degraded"].dump(), HasSubstr("no space left"));
}

}  // namespace
}  // namespace corpusd
