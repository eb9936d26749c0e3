// Clients that misbehave: each is told or closed, and the others notice nothing.
#include <thread>

#include "tests/unit/daemon/http_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;

TEST_F(HttpTest, BothSocketsAnswerAndConnectionsAreKept) {
  StartDaemon();
  for (const std::string& address : {unix_address(), tcp_address()}) {
    HttpClient client(address);
    for (int i = 0; i < 3; ++i) {
      const HttpReply reply = client.Get("/health");
      EXPECT_EQ(reply.status, 200);
      EXPECT_EQ(Parse(reply.body)["status"], "ok");
      EXPECT_FALSE(reply.headers.at("x-request-id").empty());
      EXPECT_EQ(reply.headers.at("cache-control"), "no-store");
    }
    const HttpReply head = client.Send("HEAD", "/health", "");
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.headers.at("content-length"), "15");
    EXPECT_EQ(client.Send("GET", "/livez", "", "X-Request-Id: my-1\r\n").headers["x-request-id"],
              "my-1");
    EXPECT_EQ(client.Send("GET", "/livez", "", "Connection: close\r\n").status, 200);
    EXPECT_TRUE(client.Closed());
  }
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  StartDaemon();
  HttpClient client(unix_address());
  const std::string get = " HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Write("GET /health" + get + "GET /nowhere" + get + "GET /livez" + get);
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().status, 404);
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, UnknownPathsAndMethods) {
  StartDaemon();
  HttpClient client(unix_address());
  EXPECT_EQ(ErrorOf(client.Get("/nowhere"), 404)["type"], "not_found_error");
  const HttpReply reply = client.Post("/health", "{}");
  EXPECT_EQ(ErrorOf(reply, 405)["code"], "method_not_allowed");
  EXPECT_EQ(reply.headers.at("allow"), "GET");
}

TEST_F(HttpTest, AmbiguousRequestsAreRefusedAndTheConnectionEnds) {
  StartDaemon();
  const std::string post = "POST /tokenize HTTP/1.1\r\nHost: x\r\n";
  for (const std::string& request :
       {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        post + "Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}",
        post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        post + "Content-Length: -1\r\n\r\n", post + "Content-Length: 2, 2\r\n\r\n{}",
        post + "Content-Length : 2\r\n\r\n{}", post + "Transfer-Encoding: identity\r\n\r\n{}",
        post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        std::string("GET /health HTTP/1.1\r\n\r\n"),
        std::string("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        std::string("GET /health HTTP/2.0\r\nHost: a\r\n\r\n"),
        std::string("GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
        std::string("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        std::string("\r\n\r\ngarbage\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n"}) {
    HttpClient client(unix_address());
    client.Write(request);
    const HttpReply reply = client.Read();
    EXPECT_EQ(ErrorOf(reply, 400)["type"], "invalid_request_error") << request;
    EXPECT_EQ(reply.headers.at("connection"), "close");
    EXPECT_TRUE(client.Closed()) << request;
  }
  EXPECT_EQ(HttpClient(unix_address()).Get("/health").status, 200);
}

TEST_F(HttpTest, PagesOfOtherHostsCannotUseTheLoopbackPort) {
  StartDaemon();
  HttpClient client(tcp_address());
  client.Write("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(ErrorOf(client.Read(), 403)["type"], "permission_error");
  EXPECT_EQ(HttpClient(tcp_address())
                .Send("GET", "/health", "", "Origin: http://evil.example\r\n")
                .status,
            403);
}

TEST_F(HttpTest, LimitsOfHeadAndBody) {
  options_.http_body_bytes_max = 64 << 10;
  StartDaemon();
  HttpClient large(unix_address());
  large.Write("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(20000, 'a') + "\r\n\r\n");
  EXPECT_EQ(ErrorOf(large.Read(), 431)["code"], "headers_too_large");
  EXPECT_TRUE(large.Closed());
  HttpClient announced(unix_address());
  announced.Write("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
  EXPECT_EQ(ErrorOf(announced.Read(), 413)["code"], "body_too_large");
  HttpClient chunked(unix_address());
  chunked.Write("POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(65536, ' ') + "\r\n";
  for (int i = 0; i < 65 && chunked.Write(chunk); ++i) {
  }
  EXPECT_EQ(ErrorOf(chunked.Read(), 413)["code"], "body_too_large");
  HttpClient polite(unix_address());
  polite.Write(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
      "Content-Length: 16\r\n\r\n");
  EXPECT_EQ(polite.Read().status, 100);
  polite.Write("{\"content\":\"ab\"}");
  EXPECT_EQ(Parse(polite.Read().body)["tokens"].size(), 2u);
}

TEST_F(HttpTest, SlowlorisIsClosedInTimeAndHoldsUpNobody) {
  options_.http_header_timeout = milliseconds(300);
  options_.http_body_timeout = milliseconds(300);
  options_.http_idle_timeout = milliseconds(300);
  StartDaemon();
  HttpClient head(unix_address()), body(unix_address()), idle(unix_address());
  head.Write("GET /health HTTP/1.1\r\n");
  body.Write("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
  for (int i = 0; i < 5; ++i) {
    head.Write("X: y\r\n");
    body.Write(" ");
    EXPECT_EQ(HttpClient(unix_address()).Get("/health").status, 200);
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_EQ(ErrorOf(head.Read(), 408)["code"], "request_timeout");
  EXPECT_EQ(ErrorOf(body.Read(), 408)["code"], "request_timeout");
  EXPECT_TRUE(idle.Closed());
}

TEST_F(HttpTest, OneClientTooManyIsToldToComeAgain) {
  options_.http_connections_max = 2;
  StartDaemon();
  HttpClient first(unix_address()), second(tcp_address());
  EXPECT_EQ(first.Get("/health").status, 200);
  EXPECT_EQ(second.Get("/health").status, 200);
  HttpClient third(unix_address());
  const HttpReply refused = third.Get("/health");
  EXPECT_EQ(ErrorOf(refused, 503)["type"], "unavailable_error");
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  second.Close();
  WaitFor("a place", [&] { return HttpClient(unix_address()).Get("/health").status == 200; });
  EXPECT_EQ(first.Get("/health").status, 200);
}

TEST_F(HttpTest, StopsInOrder) {
  StartDaemon();
  MakeCorpus("a");
  HttpClient idle(unix_address()), streaming(unix_address());
  EXPECT_EQ(idle.Get("/health").status, 200);
  const std::string body =
      R"({"model":"fake@a","stream":true,"messages":[{"role":"user","content":"forever"}]})";
  streaming.Write("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                  std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_NE(streaming.ReadUntil("w ").find("200 OK"), std::string::npos);
  StopDaemon();
  EXPECT_TRUE(idle.Closed());
  EXPECT_NE(streaming.ReadUntil("[DONE]").find("cancelled"), std::string::npos);
  EXPECT_TRUE(streaming.Closed());
}

}  // namespace
}  // namespace corpusd
