// The resource /v1/corpora: made, watched, changed under conditions, removed.
#include <filesystem>
#include <fstream>

#include "tests/unit/daemon/http_fixture.h"

namespace corpusd {
namespace {

class HttpCorporaTest : public HttpTest {
 protected:
  void Start() {
    StartDaemon();
    client_ = std::make_unique<HttpClient>(unix_address());
  }
  HttpReply Create(const Json& body, const std::string& headers = "") {
    return client_->Send("POST", "/v1/corpora", body.dump(), headers);
  }
  Json Get(const std::string& name) { return Parse(client_->Get("/v1/corpora/" + name).body); }
  void WaitReady(const std::string& name) {
    WaitFor("the corpus", [&] { return Get(name)["state"] == "ready"; });
  }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
  }
  std::unique_ptr<HttpClient> client_;
};

TEST_F(HttpCorporaTest, IsMadeOfTextsAsAJob) {
  Start();
  controls_.HoldPrefill();
  const HttpReply made = Create({{"name", "a"},
                                 {"contents", {"one", {{"path", "b.txt"}, {"text", "two!"}}, ""}},
                                 {"ttl", "30d"},
                                 {"pinned", true},
                                 {"priority", "high"}});
  ASSERT_EQ(made.status, 202) << made.body;
  EXPECT_EQ(made.headers.at("location"), "/v1/corpora/a");
  EXPECT_EQ(Parse(made.body)["state"], "queued");
  EXPECT_GT(Parse(made.body)["job"]["id"], 0);
  const Json corpus = Get("a");
  EXPECT_EQ(corpus["object"], "corpus");
  EXPECT_EQ(corpus["tokens"], 7);
  EXPECT_EQ(corpus["sources"][0]["path"], "text-1");
  EXPECT_EQ(corpus["sources"][1]["path"], "b.txt");
  EXPECT_EQ(corpus["sources"].size(), 3u);
  EXPECT_FALSE(corpus["expires_at"].is_null());
  EXPECT_EQ(corpus["priority"], "high");
  EXPECT_FALSE(corpus["pinned"].is_null());
  controls_.ReleasePrefill();
  WaitReady("a");
  EXPECT_TRUE(Get("a")["job"].is_null());
  EXPECT_EQ(ErrorOf(Create({{"name", "a"}, {"contents", "x"}}), 409)["code"], "already_exists");
  const Json list = Parse(client_->Get("/v1/corpora").body);
  EXPECT_EQ(list["data"][0]["name"], "a");
  EXPECT_FALSE(list["data"][0].contains("sources"));
}

TEST_F(HttpCorporaTest, LongTextsComeInPieces) {
  options_.http_body_bytes_max = size_t{16} << 20;
  Start();
  const HttpReply made = Create({{"name", "long"}, {"contents", std::string(5 << 20, 'x')}});
  // The fake engine's context is shorter than that; the refusal names the count, so all of it came.
  EXPECT_NE(std::string(ErrorOf(made, 400)["message"]).find("token"), std::string::npos);
}

TEST_F(HttpCorporaTest, WrongFieldsAreNamed) {
  Start();
  const auto param = [&](const char* field, const Json& value) {
    Json body = {{"name", "a"}, {"contents", "x"}};
    body[field] = value;
    return ErrorOf(Create(body), 400)["param"];
  };
  EXPECT_EQ(param("name", "../a"), "name");
  EXPECT_EQ(param("name", nullptr), "name");
  EXPECT_EQ(param("contents", 5), "contents");
  EXPECT_EQ(param("contents", nullptr), "contents");
  EXPECT_EQ(param("contents", {{{"path", "x"}}}), "contents[0]");
  EXPECT_EQ(param("ttl", "soon"), "ttl");
  EXPECT_EQ(param("ttl", -1), "ttl");
  EXPECT_EQ(param("pinned", "yes"), "pinned");
  EXPECT_EQ(param("sources", 1), "sources");
  EXPECT_EQ(ErrorOf(Create({{"name", "a"}, {"contents", "x"}, {"mode", "odd"}}), 400)["code"],
            "invalid_argument");
  EXPECT_EQ(client_->Get("/v1/corpora/a").status, 404);
}

TEST_F(HttpCorporaTest, SourcesComeFromAllowedFoldersOnly) {
  const std::string root = folder_ + "/root", outside = folder_ + "/outside";
  Write(root + "/b.txt", "bb");
  Write(root + "/sub/a.txt", "a");
  Write(root + "/sub/.hidden", "hidden");
  Write(root + "/binary", std::string("\0\1", 2));
  Write(outside + "/secret.txt", "secret");
  Write(folder_ + "/root-beside/x.txt", "x");
  std::filesystem::create_symlink(outside, root + "/link");
  std::filesystem::create_symlink(outside + "/secret.txt", root + "/link.txt");
  std::filesystem::create_symlink(root + "/b.txt", root + "/inside.txt");
  options_.http_source_roots = {root};
  Start();
  ASSERT_EQ(Create({{"name", "a"}, {"sources", root}}).status, 202);
  const Json corpus = Get("a");
  ASSERT_EQ(corpus["sources"].size(), 2u);  // links are not followed, hidden and binary left out
  EXPECT_EQ(corpus["sources"][0]["path"], root + "/b.txt");
  EXPECT_EQ(corpus["sources"][1]["path"], root + "/sub/a.txt");
  EXPECT_EQ(corpus["skipped_files"], 2);
  EXPECT_EQ(Create({{"name", "b"}, {"sources", {root + "/inside.txt"}}}).status, 202);
  for (const std::string& path :
       {outside, outside + "/secret.txt", root + "/../outside/secret.txt", root + "/link.txt",
        root + "/link/secret.txt", std::string("/etc/passwd"), folder_ + "/root-beside/x.txt",
        std::string("root/b.txt"), outside + "/absent"}) {
    EXPECT_EQ(ErrorOf(Create({{"name", "c"}, {"sources", path}}), 403)["type"], "permission_error")
        << path;
  }
  EXPECT_EQ(Create({{"name", "c"}, {"sources", root + "/absent"}}).status, 404);
  EXPECT_EQ(client_->Get("/v1/corpora/c").status, 404);
}

TEST_F(HttpCorporaTest, NoSourcesWithoutAllowedFolders) {
  Start();
  EXPECT_EQ(ErrorOf(Create({{"name", "a"}, {"sources", "/etc/passwd"}}), 403)["type"],
            "permission_error");
}

TEST_F(HttpCorporaTest, IdempotencyKeysMakeOneCorpus) {
  Start();
  const std::string key = "Idempotency-Key: k1\r\n";
  const Json body = {{"name", "a"}, {"contents", "text"}};
  const HttpReply first = Create(body, key);
  ASSERT_EQ(first.status, 202);
  const HttpReply again = Create(body, key);
  EXPECT_EQ(again.status, 202);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.at("idempotent-replayed"), "true");
  EXPECT_EQ(again.headers.at("location"), "/v1/corpora/a");
  EXPECT_EQ(ErrorOf(Create({{"name", "b"}, {"contents", "text"}}, key), 422)["code"],
            "idempotency_key_reused");
  EXPECT_EQ(Create(body).status, 409);
  HttpClient other(tcp_address());  // another sender's key is another key
  EXPECT_EQ(other.Send("POST", "/v1/corpora", body.dump(), key).status, 409);
}

TEST_F(HttpCorporaTest, ChangesAreMadeUnderConditions) {
  Start();
  ASSERT_EQ(Create({{"name", "a"}, {"contents", "text"}}).status, 202);
  WaitReady("a");
  const HttpReply before = client_->Get("/v1/corpora/a");
  const std::string etag = before.headers.at("etag");
  const std::string match = "If-Match: " + etag + "\r\n";
  EXPECT_EQ(client_->Send("GET", "/v1/corpora/a", "", "If-None-Match: " + etag + "\r\n").status,
            304);
  const HttpReply changed =
      client_->Send("PATCH", "/v1/corpora/a", R"({"ttl":3600,"pinned":true,"reason":"r"})", match);
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_FALSE(Parse(changed.body)["expires_at"].is_null());
  EXPECT_EQ(Parse(changed.body)["pinned"]["reason"], "r");
  EXPECT_NE(changed.headers.at("etag"), etag);
  EXPECT_EQ(client_->Send("PATCH", "/v1/corpora/a", R"({"ttl":null})", match).status, 412);
  EXPECT_EQ(client_->Send("DELETE", "/v1/corpora/a", "", match).status, 412);
  EXPECT_EQ(client_->Send("POST", "/v1/corpora/a/unpin", "", match).status, 412);
  const HttpReply cleared =
      client_->Send("PATCH", "/v1/corpora/a", R"({"ttl":null,"pinned":false})");
  EXPECT_TRUE(Parse(cleared.body)["expires_at"].is_null());
  EXPECT_TRUE(Parse(cleared.body)["pinned"].is_null());
  EXPECT_EQ(ErrorOf(client_->Send("PATCH", "/v1/corpora/a", R"({"priority":"x"})"), 400)["param"],
            "priority");
  const HttpReply gone = client_->Send("DELETE", "/v1/corpora/a", "", "If-Match: *\r\n");
  EXPECT_EQ(Parse(gone.body)["deleted"], true);
  EXPECT_EQ(client_->Send("DELETE", "/v1/corpora/a", "").status, 404);
}

TEST_F(HttpCorporaTest, VerbsOnOneCorpus) {
  Start();
  ASSERT_EQ(Create({{"name", "a"}, {"contents", "text"}}).status, 202);
  WaitReady("a");
  EXPECT_EQ(Parse(client_->Post("/v1/corpora/a/pin", R"({"tier":"host","ttl":"1h"})")
                      .body)["pinned"]["tier"],
            "host");
  EXPECT_TRUE(Parse(client_->Post("/v1/corpora/a/unpin", "").body)["pinned"].is_null());
  EXPECT_EQ(Parse(client_->Post("/v1/corpora/a/warm", "").body)["disk_bytes"], 4);
  EXPECT_EQ(Parse(client_->Post("/v1/corpora/a/evict", R"({"dry_run":true})").body)["name"], "a");
  EXPECT_EQ(client_->Post("/v1/corpora/a/warm", R"({"to":"disk"})").status, 400);
  EXPECT_EQ(client_->Post("/v1/corpora/a/cancel", "").status, 412);
  EXPECT_EQ(client_->Post("/v1/corpora/b/warm", "").status, 404);
  controls_.HoldPrefill();
  ASSERT_EQ(Create({{"name", "c"}, {"contents", std::string(64, 'x')}}).status, 202);
  EXPECT_EQ(client_->Post("/v1/corpora/c/cancel", "").status, 200);
  WaitFor("the end", [&] { return Get("c")["state"] == "cancelled"; });
}

TEST_F(HttpCorporaTest, APinMadeOverTcpCanBeEndedOverTcp) {
  Start();
  ASSERT_EQ(Create({{"name", "a"}, {"contents", "text"}}).status, 202);
  WaitFor("the corpus",
          [&] { return Parse(client_->Get("/v1/corpora/a").body)["state"] == "ready"; });
  HttpClient anybody(tcp_address());
  EXPECT_EQ(anybody.Send("POST", "/v1/corpora/a/pin", R"({"tier":"disk"})").status, 200);
  EXPECT_FALSE(Parse(client_->Get("/v1/corpora/a").body)["pinned"].is_null());
  EXPECT_EQ(anybody.Send("POST", "/v1/corpora/a/unpin", "").status, 200);
  EXPECT_TRUE(Parse(client_->Get("/v1/corpora/a").body)["pinned"].is_null());
}

TEST_F(HttpCorporaTest, EventsGoOnWhereTheyWereLeft) {
  Start();
  controls_.HoldPrefill();
  ASSERT_EQ(Create({{"name", "a"}, {"contents", std::string(64, 'x')}}).status, 202);
  const std::string get = "GET /v1/corpora/a/events HTTP/1.1\r\nHost: x\r\n";
  std::string last;
  {
    HttpClient watcher(unix_address());
    watcher.Write(get + "\r\n");
    controls_.PermitRuns(1);  // progress soon after progress is not told
    const std::string events = watcher.ReadUntil("\"done_tokens\":16");
    EXPECT_NE(events.find("text/event-stream"), std::string::npos);
    EXPECT_NE(events.find("event: job\ndata: {"), std::string::npos);
    const size_t id = events.rfind("id: ") + 4;
    last = events.substr(id, events.find('\n', id) - id);
  }
  HttpClient watcher(unix_address());
  watcher.Write(get + "Last-Event-ID: " + last + "\r\n\r\n");
  controls_.ReleasePrefill();
  const HttpReply rest = watcher.Read();
  EXPECT_EQ(rest.body.find(last), std::string::npos);  // that one is known
  EXPECT_NE(rest.body.find("\"state\":\"done\""), std::string::npos);
  const size_t id = rest.body.rfind("id: ") + 4;
  last = rest.body.substr(id, rest.body.find('\n', id) - id);
  EXPECT_EQ(
      client_->Send("GET", "/v1/corpora/a/events", "", "Last-Event-ID: " + last + "\r\n").status,
      204);
  EXPECT_NE(client_->Get("/v1/corpora/a/events").body.find("\"state\":\"done\""),
            std::string::npos);
  EXPECT_EQ(client_->Get("/v1/corpora/nobody/events").status, 404);
}

}  // namespace
}  // namespace corpusd
