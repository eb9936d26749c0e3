// What of a request's head is taken, and what is refused before anything else looks at it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "daemon/http/http_message.h"
#include "daemon/http/json_text.h"
#include "daemon/http/openapi_text.h"
#include "daemon/http/router.h"

namespace corpusd {
namespace {

HttpRequest Target(const std::string& target) {
  HttpRequest request;
  request.method = "GET";
  const Status status = ParseTarget(target, &request);
  EXPECT_TRUE(status.ok()) << target << ": " << status.ToString();
  return request;
}

bool Refused(const std::string& target) {
  HttpRequest request;
  return !ParseTarget(target, &request).ok();
}

TEST(HttpTarget, IsDecodedOnce) {
  EXPECT_TRUE(Target("/").segments.empty());
  const HttpRequest request = Target("/v1/corpora/a%7Eb%2525?x=1+2&y&x=3&z=%3D#end");
  EXPECT_EQ(request.segments, (std::vector<std::string>{"v1", "corpora", "a~b%25"}));
  EXPECT_EQ(request.query.at("x"), "1 2");
  EXPECT_EQ(request.query.at("y"), "");
  EXPECT_EQ(request.query.at("z"), "=");
  EXPECT_EQ(Target("http://host:1/v1/models").segments.size(), 2u);
  EXPECT_TRUE(Target("http://host").segments.empty());
}

TEST(HttpTarget, TraversalAndBrokenEscapesAreRefused) {
  for (const char* target : {"", "v1", "*", "/v1/../etc", "/v1/%2e%2e/etc", "/v1/./x", "/a%2fb",
                             "/a%00b", "/a%0d%0ab", "/%ff", "/%c0%af", "/%", "/%1", "/%zz", "/?a=%",
                             "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"}) {
    EXPECT_TRUE(Refused(target)) << target;
  }
}

TEST(HttpFraming, WhatTwoServersCouldReadInTwoWaysIsRefused) {
  const HttpHeader host{"Host", "localhost"};
  EXPECT_TRUE(CheckFraming(11, {host}).ok());
  EXPECT_TRUE(CheckFraming(11, {host, {"content-length", "5"}}).ok());
  EXPECT_TRUE(CheckFraming(11, {host, {"Transfer-Encoding", "Chunked"}}).ok());
  EXPECT_TRUE(CheckFraming(10, {}).ok());
  EXPECT_FALSE(CheckFraming(11, {}).ok());
  EXPECT_FALSE(CheckFraming(11, {host, host}).ok());
  EXPECT_FALSE(
      CheckFraming(11, {host, {"Content-Length", "5"}, {"Transfer-Encoding", "chunked"}}).ok());
  EXPECT_FALSE(CheckFraming(11, {host, {"Content-Length", "5"}, {"Content-Length", "5"}}).ok());
  for (const char* length : {"+5", "5, 5", "0x5", "", "-1"}) {
    EXPECT_FALSE(CheckFraming(11, {host, {"Content-Length", length}}).ok()) << length;
  }
  for (const char* encoding : {"gzip", "chunked, identity", "xchunked", "chunked,chunked", ""}) {
    EXPECT_FALSE(CheckFraming(11, {host, {"Transfer-Encoding", encoding}}).ok()) << encoding;
  }
  EXPECT_FALSE(CheckFraming(10, {{"Transfer-Encoding", "chunked"}}).ok());
}

TEST(HttpOrigin, PagesOfOtherHostsAreRefused) {
  EXPECT_TRUE(CheckOrigin({{"Host", "127.0.0.1:8040"}}).ok());
  EXPECT_TRUE(CheckOrigin({{"Host", "LocalHost"}}).ok());
  EXPECT_TRUE(CheckOrigin({{"Host", "[::1]:8040"}}).ok());
  EXPECT_TRUE(CheckOrigin({{"Host", "127.0.0.1:8040"}, {"Origin", "http://127.0.0.1:8040"}}).ok());
  EXPECT_FALSE(CheckOrigin({{"Host", "evil.example:8040"}}).ok());
  EXPECT_FALSE(CheckOrigin({{"Host", "127.0.0.1.evil.example"}}).ok());
  EXPECT_FALSE(CheckOrigin({{"Host", "127.0.0.1:8040"}, {"Origin", "http://evil.example"}}).ok());
  EXPECT_FALSE(CheckOrigin({{"Host", "127.0.0.1:8040"}, {"Origin", "null"}}).ok());
}

TEST(HttpJson, LimitsHoldBeforeAnythingIsBuilt) {
  EXPECT_TRUE(ParseJson("[" + std::string(31, '[') + std::string(31, ']') + "]").ok());
  EXPECT_FALSE(ParseJson(std::string(100000, '[')).ok());
  EXPECT_FALSE(ParseJson(std::string(100000, '{')).ok());
  EXPECT_TRUE(ParseJson("{\"a\": \"" + std::string(1000, '[') + "\\\"[\"}").ok());
  std::string many = "[0";
  for (size_t i = 0; i < kJsonValuesMax; ++i) many += ",0";
  EXPECT_FALSE(ParseJson(many + "]").ok());
  EXPECT_FALSE(ParseJson("{\"a\": \"\xff\"}").ok());
  EXPECT_FALSE(ParseJson("{\"a\": \"\xed\xa0\x80\"}").ok());  // half a surrogate pair
  EXPECT_FALSE(ParseJson("{\"a\": \"\\ud800\"}").ok());
  EXPECT_FALSE(ParseJson("{} {}").ok());
  EXPECT_FALSE(ParseJson("").ok());
  EXPECT_FALSE(ParseJsonObject("[]").ok());
}

TEST(HttpJson, FieldsNameWhatIsWrong) {
  const Json object = Json::parse(
      R"({"text": 1, "flag": "x", "number": "1", "whole": 1.5, "big": 1e300, "null": null,
          "negative": -5, "texts": ["a", 1]})");
  const auto refused = [&](auto&& read) {
    JsonFields fields(object, "in.");
    read(fields);
    return fields.error() ? fields.error()->param : "";
  };
  EXPECT_EQ(refused([](auto& f) { f.Text("text"); }), "in.text");
  EXPECT_EQ(refused([](auto& f) { f.Flag("flag", true); }), "in.flag");
  EXPECT_EQ(refused([](auto& f) { f.Number("number", 0, 1, 0); }), "in.number");
  EXPECT_EQ(refused([](auto& f) { f.Whole("whole", 0, 9, 0); }), "in.whole");
  EXPECT_EQ(refused([](auto& f) { f.Whole("big", 0, 9, 0); }), "in.big");
  EXPECT_EQ(refused([](auto& f) { f.Whole("negative", 0, 9, 0); }), "in.negative");
  EXPECT_EQ(refused([](auto& f) { f.Texts("texts", 4); }), "in.texts");
  EXPECT_EQ(refused([](auto& f) { f.Array("text"); }), "in.text");
  EXPECT_EQ(refused([](auto& f) { f.Object("text"); }), "in.text");
  JsonFields fields(object);
  EXPECT_EQ(fields.Text("null", "otherwise"), "otherwise");
  EXPECT_EQ(fields.Whole("absent", 0, 9, 7), 7);
  EXPECT_FALSE(fields.error());
}

TEST(HttpRouter, TheDocumentHasEveryRouteAndNoOther) {
  const auto document = Json::parse(OpenApiText(), nullptr, false);
  ASSERT_TRUE(document.is_object());
  std::set<std::string> documented, routes;
  for (const auto& [path, item] : document["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      if (method != "parameters") documented.insert(method + " " + path);
    }
  }
  for (const Route& route : HttpRoutes()) {
    std::string method(route.method);
    std::transform(method.begin(), method.end(), method.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    routes.insert(method + " " + std::string(route.pattern));
  }
  EXPECT_EQ(documented, routes);
}

TEST(HttpRouter, FindsRoutesAndSaysWhatAPathHas) {
  const std::vector<Route> routes = {
      {"GET", "/"}, {"GET", "/a/{name}"}, {"POST", "/a/{name}/b"}, {"DELETE", "/a/{name}"}};
  const auto match = [&](const std::string& method, const std::string& target) {
    HttpRequest request = Target(target);
    request.method = method;
    return MatchRoute(routes, request);
  };
  EXPECT_EQ(match("GET", "/").route, &routes[0]);
  EXPECT_EQ(match("DELETE", "/a/x%20y").route, &routes[3]);
  EXPECT_EQ(match("DELETE", "/a/x%20y").name, "x y");
  EXPECT_EQ(match("POST", "/a/x/b").name, "x");
  EXPECT_EQ(match("PUT", "/a/x").allow, "GET, DELETE");
  for (const char* target : {"/a", "/a/", "/a//b", "/a/x/b/c", "/b"}) {
    EXPECT_EQ(match("GET", target).route, nullptr) << target;
    EXPECT_TRUE(match("GET", target).allow.empty() || std::string(target) == "/a//b") << target;
  }
}

}  // namespace
}  // namespace corpusd
