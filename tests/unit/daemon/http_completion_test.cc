// Models, token ids, chat and plain completions, as clients of the OpenAI dialect see them.
#include "tests/unit/daemon/http_fixture.h"

namespace corpusd {
namespace {

class HttpCompletionTest : public HttpTest {
 protected:
  HttpCompletionTest() {
    StartDaemon();
    MakeCorpus("a");
    client_ = std::make_unique<HttpClient>(unix_address());
  }
  static Json Chat(const std::string& question) {
    return {{"model", "fake@a"},
            {"max_tokens", 8},
            {"messages", {{{"role", "user"}, {"content", question}}}}};
  }
  HttpReply Post(const Json& body, const std::string& path = "/v1/chat/completions") {
    return client_->Post(path, body.dump());
  }
  // The parsed data of every event.
  static std::vector<Json> Events(const std::string& body) {
    std::vector<Json> events;
    size_t at = 0;
    while ((at = body.find("data: ", at)) != std::string::npos) {
      const size_t end = body.find("\n\n", at);
      events.push_back(Parse(body.substr(at + 6, end - at - 6)));
      at = end;
    }
    return events;
  }
  std::unique_ptr<HttpClient> client_;
};

TEST_F(HttpCompletionTest, ModelsAreTheModelAndItsReadyCorpora) {
  controls_.HoldPrefill();
  ASSERT_TRUE(Ingest(*Connect(), "unready", std::string(64, 't')).ok());
  const Json list = Parse(client_->Get("/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "fake");
  EXPECT_EQ(list["data"][1]["id"], "fake@a");
  EXPECT_EQ(list["data"][1]["object"], "model");
  EXPECT_EQ(Parse(client_->Get("/v1/models/fake@a").body)["corpus"]["tokens"], 100);
  EXPECT_EQ(Parse(client_->Get("/v1/models/fake").body)["id"], "fake");
  EXPECT_EQ(ErrorOf(client_->Get("/v1/models/fake@unready"), 404)["code"], "model_not_found");
  EXPECT_EQ(ErrorOf(client_->Get("/v1/models/gpt"), 404)["param"], "model");
}

TEST_F(HttpCompletionTest, ChatWithAndWithoutACorpus) {
  const HttpReply reply = Post(Chat("q"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json body = Parse(reply.body);
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "fake@a");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "w w w w w w w w ");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 101);
  EXPECT_EQ(body["usage"]["completion_tokens"], 8);
  EXPECT_EQ(body["usage"]["total_tokens"], 109);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 100);
  EXPECT_TRUE(body["corpusd"]["timing"].contains("first_token_ms"));
  Json by_field = Chat("q");
  by_field["model"] = "fake";
  by_field["cached_content"] = "corpora/a";
  EXPECT_EQ(Parse(Post(by_field).body)["usage"]["prompt_tokens_details"]["cached_tokens"], 100);
  by_field.erase("model");
  EXPECT_EQ(Parse(Post(by_field).body)["model"], "fake@a");
  Json plain = Chat("q");
  plain["model"] = "Fake";
  const Json answer = Parse(Post(plain).body);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 1);
}

TEST_F(HttpCompletionTest, ConversationsGoWhole) {
  Json body = Chat("");
  body["messages"] = {
      {{"role", "developer"}, {"content", "12345"}},
      {{"role", "user"},
       {"content", {{{"type", "text"}, {"text", "abc"}}, {{"type", "text"}, {"text", "d"}}}}},
      {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", Json::array()}},
      {{"role", "user"}, {"content", "xy"}, {"unknown", 1}}};
  EXPECT_EQ(Parse(Post(body).body)["usage"]["prompt_tokens"], 100 + 5 + 5 + 2);
}

TEST_F(HttpCompletionTest, StreamsAreTheSameInPieces) {
  Json body = Chat("q");
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const HttpReply reply = Post(body);
  EXPECT_EQ(reply.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  const std::vector<Json> events = Events(reply.body);
  ASSERT_EQ(events.size(), 1u + 8 + 1 + 1 + 1);
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  std::string text;
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    text += events[i]["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "w w w w w w w w ");
  EXPECT_EQ(events[9]["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(events[10]["choices"].empty());
  EXPECT_EQ(events[10]["usage"]["completion_tokens"], 8);
  body.erase("stream_options");
  EXPECT_EQ(Post(body).body.find("\"usage\""), std::string::npos);
  EXPECT_EQ(client_->Get("/health").status, 200);  // the connection is kept
}

TEST_F(HttpCompletionTest, OptionsReachTheEngine) {
  Json body = Chat("options");
  body.update({{"temperature", 0.5},
               {"top_p", 0.25},
               {"top_k", 7},
               {"min_p", 0.125},
               {"repetition_penalty", 1.5},
               {"presence_penalty", -1},
               {"frequency_penalty", 1},
               {"seed", 11},
               {"n", 3},
               {"stop", {"a", "b"}},
               {"logprobs", true},
               {"top_logprobs", 2}});
  const HttpReply reply = Post(body);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const AnswerOptions& options = controls_.last_question.answers;
  EXPECT_EQ(options.sampling.temperature, 0.5);
  EXPECT_EQ(options.sampling.top_p, 0.25);
  EXPECT_EQ(options.sampling.top_k, 7u);
  EXPECT_EQ(options.sampling.min_p, 0.125);
  EXPECT_EQ(options.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(options.sampling.presence_penalty, -1);
  EXPECT_EQ(options.sampling.frequency_penalty, 1);
  EXPECT_EQ(options.sampling.seed, 11u);
  EXPECT_EQ(options.count, 3u);
  EXPECT_EQ(options.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(options.top_logprobs, 2u);
  EXPECT_EQ(Parse(reply.body)["choices"].size(), 3u);
  EXPECT_TRUE(Parse(reply.body)["choices"][2]["logprobs"].contains("content"));
  body["stream"] = true;
  const std::vector<Json> events = Events(Post(body).body);
  EXPECT_EQ(events[2]["choices"][0]["index"], 2);  // the third role
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["index"], 2);
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "length");
}

TEST_F(HttpCompletionTest, AStreamTellsHowFarItsPromptIs) {
  Json body = Chat("q");
  body["return_progress"] = true;
  EXPECT_FALSE(Parse(Post(body).body).contains("prompt_progress"));  // no stream
  body["stream"] = true;
  const std::vector<Json> events = Events(Post(body).body);
  ASSERT_EQ(events.size(), 1u + 2 + 8 + 1 + 1);
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(events[1]["prompt_progress"],
            (Json{{"total", 101}, {"cache", 100}, {"processed", 100}, {"time_ms", 0.0}}));
  EXPECT_EQ(events[2]["prompt_progress"]["processed"], 101);
  EXPECT_EQ(events[2]["choices"][0]["finish_reason"], nullptr);
  EXPECT_FALSE(events[3].contains("prompt_progress"));
  body["return_progress"] = false;
  EXPECT_EQ(Events(Post(body).body).size(), 1u + 8 + 1 + 1);
}

TEST_F(HttpCompletionTest, WhoSharesAPromptIsForTheClientToSay) {
  Json body = Chat("q");
  body["model"] = "fake";
  body["cache_salt"] = "mine";
  ASSERT_EQ(Post(body).status, 200);
  EXPECT_EQ(controls_.last_question.cache_salt, "mine");
  EXPECT_FALSE(controls_.last_question.no_cache);
  body["cache_prompt"] = false;
  ASSERT_EQ(Post(body).status, 200);
  EXPECT_TRUE(controls_.last_question.no_cache);
}

TEST_F(HttpCompletionTest, PlainCompletions) {
  const Json body = {{"model", "fake@a"}, {"prompt", "once"}, {"max_tokens", 3}};
  const Json reply = Parse(Post(body, "/v1/completions").body);
  EXPECT_EQ(reply["object"], "text_completion");
  EXPECT_EQ(reply["choices"][0]["text"], "w w w ");
  Json stream = body;
  stream["stream"] = true;
  stream["prompt"] = {"once"};
  const auto events = Events(Post(stream, "/v1/completions").body);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "w ");
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "length");
}

TEST_F(HttpCompletionTest, CitationsComeToThoseWhoWantThem) {
  Json body = Chat("cite");
  EXPECT_FALSE(Parse(Post(body).body)["corpusd"].contains("citations"));
  body["cite"] = true;
  const Json reply = Parse(Post(body).body);
  EXPECT_EQ(reply["corpusd"]["citations"][0]["source"], "docs/a.txt");
}

TEST_F(HttpCompletionTest, WrongFieldsAreNamed) {
  const auto param = [&](const char* field, const Json& value) {
    Json body = Chat("q");
    body[field] = value;
    return ErrorOf(Post(body), 400)["param"];
  };
  EXPECT_EQ(param("temperature", "hot"), "temperature");
  EXPECT_EQ(param("temperature", -1), "temperature");
  EXPECT_EQ(param("top_p", 1.5), "top_p");
  EXPECT_EQ(param("max_tokens", 0), "max_tokens");
  EXPECT_EQ(param("max_tokens", 2.5), "max_tokens");
  EXPECT_EQ(param("seed", "s"), "seed");
  EXPECT_EQ(param("n", 17), "n");
  EXPECT_EQ(param("stop", {"", "x"}), "stop");
  EXPECT_EQ(param("top_k", 0.5), "top_k");
  EXPECT_EQ(param("top_logprobs", 3), "top_logprobs");
  EXPECT_EQ(param("logprobs", 3), "logprobs");
  EXPECT_EQ(param("repetition_penalty", 11), "repetition_penalty");
  EXPECT_EQ(param("stream", 1), "stream");
  EXPECT_EQ(param("return_progress", 1), "return_progress");
  EXPECT_EQ(param("cache_salt", 1), "cache_salt");
  EXPECT_EQ(param("stream_options", {{"include_usage", 1}}), "stream_options.include_usage");
  EXPECT_EQ(param("model", 5), "model");
  EXPECT_EQ(param("messages", "q"), "messages");
  EXPECT_EQ(param("messages", Json::array()), "messages");
  EXPECT_EQ(param("messages", {1}), "messages[0]");
  EXPECT_EQ(param("messages", {{{"role", "wizard"}, {"content", "x"}}}), "messages[0].role");
  EXPECT_EQ(param("messages", {{{"role", "user"}, {"content", 5}}}), "messages[0].content");
  EXPECT_EQ(param("messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}),
            "messages[0].content");
  EXPECT_EQ(param("cached_content", "a"), "cached_content");
  EXPECT_EQ(param("cached_content", "corpora/b"), "cached_content");  // model names another
  EXPECT_EQ(ErrorOf(client_->Post("/v1/completions", R"({"prompt":[1]})"), 400)["param"], "prompt");
  Json body = Chat("q");
  body["unknown_field"] = {{"deep", 1}};
  body["temperature"] = nullptr;
  EXPECT_EQ(Post(body).status, 200);
}

TEST_F(HttpCompletionTest, WhatIsNotOfferedIsRefusedOnlyWhereItAsksForSomething) {
  const auto post = [&](const Json& more) {
    Json body = Chat("q");
    body.update(more);
    return Post(body);
  };
  const Json tool = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  EXPECT_EQ(ErrorOf(post({{"tools", tool}}), 400)["param"], "tools");
  EXPECT_EQ(ErrorOf(post({{"functions", tool}}), 400)["param"], "functions");
  EXPECT_EQ(ErrorOf(post({{"logit_bias", {{"5", -100}}}}), 400)["param"], "logit_bias");
  EXPECT_EQ(ErrorOf(post({{"response_format", {{"type", "json_object"}}}}), 400)["param"],
            "response_format");
  EXPECT_EQ(ErrorOf(post({{"echo", true}}), 400)["param"], "echo");
  EXPECT_EQ(ErrorOf(post({{"suffix", "end"}}), 400)["param"], "suffix");
  EXPECT_EQ(ErrorOf(post({{"best_of", 2}}), 400)["param"], "best_of");
  EXPECT_EQ(post({{"tools", Json::array()},
                  {"logit_bias", Json::object()},
                  {"response_format", {{"type", "text"}}},
                  {"echo", false},
                  {"suffix", nullptr},
                  {"best_of", 1}})
                .status,
            200);
  EXPECT_EQ(post({{"tools", tool}, {"tool_choice", "none"}}).status, 200);
}

TEST_F(HttpCompletionTest, ErrorsHaveTheirStatus) {
  Json body = Chat("q");
  body["model"] = "gpt-4o";
  EXPECT_EQ(ErrorOf(Post(body), 404)["code"], "model_not_found");
  body["model"] = "fake@nobody";
  EXPECT_EQ(ErrorOf(Post(body), 404)["param"], "model");
  body["stream"] = true;
  EXPECT_EQ(ErrorOf(Post(body), 404)["type"], "not_found_error");  // before the stream begins
  EXPECT_EQ(ErrorOf(Post(Chat("fail")), 500)["type"], "server_error");
  controls_.HoldPrefill();
  ASSERT_TRUE(Ingest(*Connect(), "unready", std::string(64, 't')).ok());
  body["model"] = "fake@unready";
  const HttpReply early = Post(body);
  EXPECT_EQ(ErrorOf(early, 503)["code"], "not_ready");
  EXPECT_EQ(early.headers.at("retry-after"), "1");
  for (const char* text : {"", "{", "[]", "\xff\xfe", "{\"model\":\"\xff\"}"}) {
    EXPECT_EQ(ErrorOf(client_->Post("/v1/chat/completions", text), 400)["type"],
              "invalid_request_error");
  }
  EXPECT_EQ(client_->Post("/v1/chat/completions", std::string(100000, '[')).status, 400);
}

TEST_F(HttpCompletionTest, TokensThereAndBack) {
  const Json tokens = Parse(client_->Post("/tokenize", R"({"content":"a\u00e9"})").body);
  EXPECT_EQ(tokens["tokens"], (Json{97, 195, 169}));
  const Json pieces =
      Parse(client_->Post("/tokenize", R"({"content":"a\u00e9","with_pieces":true})").body);
  EXPECT_EQ(pieces["tokens"][0]["piece"], "a");
  EXPECT_EQ(pieces["tokens"][1]["piece"], (Json{195}));
  EXPECT_EQ(Parse(client_->Post("/detokenize", tokens.dump()).body)["content"], "a\u00e9");
  EXPECT_EQ(ErrorOf(client_->Post("/detokenize", R"({"tokens":[-1]})"), 400)["param"], "tokens");
  EXPECT_EQ(ErrorOf(client_->Post("/detokenize", R"({"tokens":[999]})"), 400)["param"], "tokens");
  EXPECT_EQ(ErrorOf(client_->Post("/tokenize", R"({"content":1})"), 400)["param"], "content");
}

TEST_F(HttpCompletionTest, VanishedClientsAnswerIsCancelled) {
  for (const bool stream : {true, false}) {
    Json body = Chat("forever");
    body["stream"] = stream;
    const int before = controls_.asks_stopped;
    HttpClient gone(stream ? tcp_address() : unix_address());
    const std::string text = body.dump();
    gone.Write("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
               std::to_string(text.size()) + "\r\n\r\n" + text);
    WaitFor("the question to run", [&] { return controls_.asks_running == 1; });
    gone.Close();
    WaitFor("the question to stop", [&] { return controls_.asks_stopped == before + 1; });
  }
}

TEST_F(HttpCompletionTest, SlowReaderStallsNobodyAndIsClosed) {
  Json body = Chat("big");
  body["max_tokens"] = 100000;
  body["stream"] = true;
  HttpClient slow(unix_address());
  const std::string text = body.dump();
  slow.Write("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
             std::to_string(text.size()) + "\r\n\r\n" + text);
  WaitFor("the question to run",
          [&] { return controls_.asks_running + controls_.asks_stopped > 0; });
  EXPECT_EQ(client_->Get("/health").status, 200);
  EXPECT_EQ(Post(Chat("q")).status, 200);
  WaitFor("the question to be given up", [&] { return controls_.asks_stopped == 1; });
  EXPECT_EQ(Post(Chat("q")).status, 200);
}

TEST_F(HttpCompletionTest, ProbesSayWhatIsDegraded) {
  EXPECT_EQ(client_->Get("/livez").status, 200);
  const HttpReply ready = client_->Get("/readyz");
  EXPECT_EQ(ready.status, 200);
  const Json body = Parse(ready.body);
  EXPECT_GT(body["checks"].size(), 3u);
  EXPECT_EQ(body["status"] == "ok", body["degraded"].empty());
  const Json props = Parse(client_->Get("/props").body);
  EXPECT_EQ(props["n_ctx"], FakeEngineControls::kContextTokens);
  EXPECT_EQ(props["model"], "fake");
}

}  // namespace
}  // namespace corpusd
