// Questions: streams, many at once, cancelled, abandoned, too many.
#include <map>
#include <thread>

#include "client/token_stream.h"
#include "client/unix_channel.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;

class RpcQueryTest : public DaemonTest {
 protected:
  RpcQueryTest() {
    StartDaemon();
    client_ = Connect();
    MakeReady(*client_, "a", std::string(100, 't'));
  }
  static v1::AskRequest Question(const std::string& text) {
    v1::AskRequest request;
    request.set_name("a");
    request.set_question(text);
    request.set_max_tokens(8);
    return request;
  }
  std::unique_ptr<CorpusClient> client_;
};

TEST_F(RpcQueryTest, StreamEqualsAnswer) {
  std::string streamed;
  const auto reply = client_->Ask(Question("q"), [&](std::string_view text) {
    streamed += text;
    return true;
  });
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->answer(), "w w w w w w w w ");
  EXPECT_EQ(streamed, reply->answer());
  EXPECT_EQ(reply->usage().cached_tokens(), 100u);
  EXPECT_EQ(client_->Ask(Question("q"), nullptr)->answer(), streamed);
}

TEST_F(RpcQueryTest, BadQuestionsAreRefused) {
  EXPECT_EQ(client_->Ask(Question(""), nullptr).error().code_text, "invalid_argument");
  EXPECT_EQ(client_->Ask(Question("fail"), nullptr).error().code_text, "corruption");
  v1::AskRequest request = Question("q");
  request.set_name("nobody");
  EXPECT_EQ(client_->Ask(request, nullptr).error().code_text, "not_found");
  request = Question("q");
  request.set_temperature(-1);
  EXPECT_EQ(client_->Ask(request, nullptr).error().code_text, "invalid_argument");
  request = Question("q");
  request.set_top_p(1.5);
  EXPECT_EQ(client_->Ask(request, nullptr).error().code_text, "invalid_argument");
}

TEST_F(RpcQueryTest, OptionsOutsideTheirLimitsAreRefusedByName) {
  const auto refused = [&](const std::string& name, const auto& change) {
    v1::AskRequest request = Question("q");
    change(request);
    const auto reply = client_->Ask(request, nullptr);
    ASSERT_FALSE(reply.ok()) << name;
    EXPECT_EQ(reply.error().code_text, "invalid_argument") << name;
    EXPECT_TRUE(reply.error().message.starts_with(name)) << reply.error().message;
  };
  refused("temperature must", [](v1::AskRequest& r) { r.set_temperature(1000); });
  refused("top_p must", [](v1::AskRequest& r) { r.set_top_p(-0.1); });
  refused("min_p must", [](v1::AskRequest& r) { r.set_min_p(1.5); });
  refused("repetition_penalty must", [](v1::AskRequest& r) { r.set_repetition_penalty(-1); });
  refused("repetition_window must", [](v1::AskRequest& r) { r.set_repetition_window(1 << 20); });
  refused("presence_penalty must", [](v1::AskRequest& r) { r.set_presence_penalty(3); });
  refused("frequency_penalty must", [](v1::AskRequest& r) { r.set_frequency_penalty(-3); });
  refused("n must", [](v1::AskRequest& r) { r.set_n(17); });
  refused("stop must", [](v1::AskRequest& r) { r.add_stop(""); });
  refused("top_logprobs needs logprobs", [](v1::AskRequest& r) { r.set_top_logprobs(2); });
  refused("top_logprobs must", [](v1::AskRequest& r) {
    r.set_logprobs(true);
    r.set_top_logprobs(21);
  });
}

TEST_F(RpcQueryTest, OptionsReachTheEngine) {
  v1::AskRequest request = Question("options");
  ASSERT_TRUE(client_->Ask(request, nullptr).ok());
  const AnswerOptions defaults = controls_.last_question.answers;
  EXPECT_EQ(defaults.sampling.temperature, 0);
  EXPECT_EQ(defaults.sampling.top_p, 1);
  EXPECT_EQ(defaults.sampling.repetition_penalty, 1);
  EXPECT_EQ(defaults.sampling.repetition_window, 64u);
  EXPECT_EQ(defaults.count, 1u);
  EXPECT_FALSE(defaults.top_logprobs.has_value());
  request.set_temperature(0.5);
  request.set_top_k(40);
  request.set_top_p(0.9);
  request.set_min_p(0.05);
  request.set_repetition_penalty(1.1);
  request.set_repetition_window(128);
  request.set_presence_penalty(-1);
  request.set_frequency_penalty(0.25);
  request.set_seed(7);
  request.set_n(3);
  request.add_stop("END");
  request.set_logprobs(true);
  ASSERT_TRUE(client_->Ask(request, nullptr).ok());
  const AnswerOptions asked = controls_.last_question.answers;
  EXPECT_EQ(asked.sampling.temperature, 0.5);
  EXPECT_EQ(asked.sampling.top_k, 40u);
  EXPECT_EQ(asked.sampling.top_p, 0.9);
  EXPECT_EQ(asked.sampling.min_p, 0.05);
  EXPECT_EQ(asked.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(asked.sampling.repetition_window, 128u);
  EXPECT_EQ(asked.sampling.presence_penalty, -1);
  EXPECT_EQ(asked.sampling.frequency_penalty, 0.25);
  EXPECT_EQ(asked.sampling.seed, 7u);
  EXPECT_EQ(asked.count, 3u);
  EXPECT_EQ(asked.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(asked.top_logprobs, 0u);
}

TEST_F(RpcQueryTest, SeveralAnswersStreamSideBySide) {
  v1::AskRequest request = Question("q");
  request.set_n(2);
  request.set_logprobs(true);
  request.set_top_logprobs(1);
  std::map<uint32_t, std::string> texts, tokens;
  const auto reply = client_->AskInDeltas(request, [&](const v1::AskDelta& delta) {
    texts[delta.index()] += delta.text();
    for (const v1::TokenLogprob& token : delta.logprobs()) tokens[delta.index()] += token.token();
    return true;
  });
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  ASSERT_EQ(reply->answers_size(), 2);
  for (const v1::Answer& answer : reply->answers()) {
    EXPECT_EQ(answer.text(), "w w w w w w w w ");
    EXPECT_EQ(answer.finish_reason(), "length");
    EXPECT_EQ(answer.tokens(), 8u);
    EXPECT_EQ(texts[answer.index()], answer.text());
    EXPECT_EQ(tokens[answer.index()], answer.text());
    ASSERT_EQ(answer.logprobs_size(), 8);
    EXPECT_EQ(answer.logprobs(0).logprob(), -0.5);
    EXPECT_EQ(answer.logprobs(0).top_size(), 1);
  }
  EXPECT_EQ(reply->answer(), reply->answers(0).text());
  EXPECT_EQ(reply->usage().completion_tokens(), 16u);
  // Who wants text alone gets the first answer's.
  std::string streamed;
  ASSERT_TRUE(client_
                  ->Ask(request,
                        [&](std::string_view text) {
                          streamed += text;
                          return true;
                        })
                  .ok());
  EXPECT_EQ(streamed, "w w w w w w w w ");
}

TEST_F(RpcQueryTest, CitationsComeToThoseWhoWantThem) {
  v1::AskRequest request = Question("cite");
  EXPECT_EQ(client_->Ask(request, nullptr)->citations_size(), 0);
  request.set_cite(true);
  const auto reply = client_->Ask(request, nullptr);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  ASSERT_EQ(reply->citations_size(), 1);
  EXPECT_EQ(reply->citations(0).source(), "docs/a.txt");
  EXPECT_EQ(reply->citations(0).first_line(), 3u);
  EXPECT_EQ(reply->citations(0).last_line(), 5u);
  EXPECT_EQ(reply->selection().chosen_blocks(), 2u);
  EXPECT_EQ(reply->selection().candidate_blocks(), 9u);
}

TEST_F(RpcQueryTest, CallbackCancels) {
  int pieces = 0;
  const auto reply =
      client_->Ask(Question("forever"), [&](std::string_view) { return ++pieces < 3; });
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->finish_reason(), "cancelled");
  EXPECT_TRUE(client_->Ping().ok());
}

TEST_F(RpcQueryTest, DroppedStreamCancels) {
  auto stream = client_->StartAsk(Question("forever"));
  ASSERT_TRUE(stream.ok());
  WaitFor("the question to run", [&] { return controls_.asks_running == 1; });
  stream->reset();
  WaitFor("the question to stop", [&] { return controls_.asks_stopped == 1; });
  EXPECT_TRUE(client_->Ping().ok());
}

TEST_F(RpcQueryTest, VanishedClientsQuestionIsCancelled) {
  auto channel =
      UnixChannel::Connect(options_.socket_path, kNoDeadline, kFrameBytesMaxDefault, nullptr);
  ASSERT_TRUE(channel.ok());
  v1::Request request;
  request.set_id(1);
  *request.mutable_ask() = Question("forever");
  ASSERT_TRUE((*channel)->Send(request, kNoDeadline).ok());
  WaitFor("the question to run", [&] { return controls_.asks_running == 1; });
  channel->reset();  // no polite cancel: the connection just goes
  WaitFor("the question to stop", [&] { return controls_.asks_stopped == 1; });
}

TEST_F(RpcQueryTest, TimeoutEndsTheQuestion) {
  // Long enough for a worker of a busy machine to begin.
  client_->set_timeout(milliseconds(1000));
  const auto reply = client_->Ask(Question("forever"), nullptr);
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "deadline_exceeded");
  WaitFor("the question to stop", [&] { return controls_.asks_stopped == 1; });
}

TEST_F(RpcQueryTest, QuestionsRunWhileAPrefillRuns) {
  controls_.HoldPrefill();
  ASSERT_TRUE(Ingest(*client_, "b", std::string(64, 't')).ok());
  EXPECT_TRUE(client_->Ask(Question("q"), nullptr).ok());
  v1::AskRequest early = Question("q");
  early.set_name("b");
  EXPECT_EQ(client_->Ask(early, nullptr).error().code_text, "not_ready");
}

TEST_F(RpcQueryTest, ManySessionsAtOnce) {
  std::atomic<int> right{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        auto client = Connect();
        for (int i = 0; i < 20; ++i) {
          const auto reply = client->Ask(Question("q"), [](std::string_view) { return true; });
          if (reply.ok() && reply->answer() == "w w w w w w w w ") ++right;
        }
      });
    }
  }
  EXPECT_EQ(right, 160);
}

TEST_F(RpcQueryTest, ManyInFlightOnOneConnectionAndTheNextIsRetryable) {
  // 4 run and 64 wait (16 a running one): the 69th is refused, and nothing else suffers.
  auto channel =
      UnixChannel::Connect(options_.socket_path, kNoDeadline, kFrameBytesMaxDefault, nullptr);
  ASSERT_TRUE(channel.ok());
  v1::Request request;
  *request.mutable_ask() = Question("forever");
  for (uint64_t id = 1; id <= 69; ++id) {
    request.set_id(id);
    ASSERT_TRUE((*channel)->Send(request, kNoDeadline).ok());
  }
  const auto refused = (*channel)->Receive(kNoDeadline);
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->id(), 69u);
  EXPECT_EQ(refused->error().code_text(), "unavailable");
  EXPECT_TRUE(client_->Ping().ok());
  EXPECT_TRUE(client_->List().ok());
  // A waiting one is cancelled at once, a running one answers with what it has.
  WaitFor("the first to run", [&] { return controls_.asks_running == 4; });
  for (uint64_t id : {68, 1}) {
    v1::Request cancel;
    cancel.set_id(100 + id);
    cancel.mutable_cancel()->set_request_id(id);
    ASSERT_TRUE((*channel)->Send(cancel, kNoDeadline).ok());
  }
  std::map<uint64_t, v1::Response> ended;
  while (ended.size() < 4) {
    auto response = (*channel)->Receive(kNoDeadline);
    ASSERT_TRUE(response.ok());
    if (response->end_of_stream()) ended[response->id()] = *response;
  }
  EXPECT_EQ(ended[68].error().code_text(), "cancelled");
  EXPECT_EQ(ended[1].ask().finish_reason(), "cancelled");
  EXPECT_TRUE(ended[101].has_empty());
}

}  // namespace
}  // namespace corpusd
