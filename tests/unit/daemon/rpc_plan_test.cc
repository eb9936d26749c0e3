// Plans, and what an ingest says of the files that it left out.
#include <string>

#include "daemon/rpc/corpus_message.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

class RpcPlanTest : public DaemonTest {
 protected:
  RpcPlanTest() {
    StartDaemon();
    client_ = Connect();
  }
  std::unique_ptr<CorpusClient> client_;
};

TEST_F(RpcPlanTest, SaysWhatASampleAndABlockTake) {
  v1::PlanRequest request;
  request.set_sample(std::string(1234, 's'));
  auto reply = client_->Plan(request);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->sample_tokens(), 1234u);  // the fake engine's tokens are bytes
  EXPECT_EQ(reply->preamble_tokens(), 0u);
  EXPECT_EQ(reply->block_tokens(), 8u);
  EXPECT_EQ(reply->exact_tokens_max(), 1000u);
  EXPECT_EQ(reply->context_tokens(), 1000u);
  EXPECT_EQ(reply->model_name(), "fake");
  ASSERT_GE(reply->formats_size(), 2);
  EXPECT_EQ(reply->formats(0).name(), "bf16");
  EXPECT_EQ(reply->formats(0).block_bytes(), 64u * 1024);
  EXPECT_EQ(client_->List()->corpora_size(), 0);  // nothing is kept

  request.clear_sample();
  EXPECT_EQ(client_->Plan(request)->sample_tokens(), 0u);
}

TEST_F(RpcPlanTest, ADefaultOfOtherLayersIsAmongTheFormats) {
  EXPECT_EQ(client_->Plan({})->formats_size(), 5);
  controls_.kv_format = "cq4+0-1:cq8";
  const auto reply = client_->Plan({});
  EXPECT_EQ(reply->default_format(), "cq4+0-1:cq8");
  ASSERT_EQ(reply->formats_size(), 6);
  EXPECT_EQ(reply->formats(5).name(), "cq4+0-1:cq8");
}

TEST_F(RpcPlanTest, PricesAreTheOptionsAndRatesWhatWasMeasured) {
  StopDaemon();
  options_.price_currency = "EUR";
  options_.price_cpu_hour = 0.25;
  options_.price_gb_month = 0.1;
  options_.rag_tokens = 512;
  options_.threads = 4;
  StartDaemon();
  client_ = Connect();
  v1::Economics economics = client_->Plan({})->economics();
  EXPECT_EQ(economics.currency(), "EUR");
  EXPECT_EQ(economics.compute(), "4 CPU threads");
  EXPECT_EQ(economics.compute_hour_price(), 1);
  EXPECT_EQ(economics.gb_month_price(), 0.1);
  EXPECT_EQ(economics.rag_tokens(), 512u);
  EXPECT_EQ(economics.prompt_tokens_per_s(), 0);
  MakeReady(*client_, "a", std::string(100, 't'));
  EXPECT_EQ(client_->Show("a")->cost().questions(), 0u);
  EXPECT_FALSE(client_->List()->corpora(0).has_cost());
  v1::AskRequest ask;
  ask.set_name("a");
  ask.set_question("q");
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client_->Ask(ask, nullptr).ok());
  const v1::CorpusCost cost = client_->Show("a")->cost();
  EXPECT_EQ(cost.questions(), 3u);
  EXPECT_EQ(cost.currency(), "EUR");
  EXPECT_EQ(cost.cold_tokens(), 100u);
  EXPECT_EQ(cost.rag_tokens(), 512u);
}

TEST(QuestionRates, CountComputingAndNotWaiting) {
  QuestionRates rates;
  QuestionReport report;
  report.completion_tokens = 1;
  report.queue_ms = 500;
  report.first_token_ms = 700;
  rates.OnQuestion("a", report);
  report.first_token_ms = 900;
  rates.OnQuestion("a", report);
  EXPECT_DOUBLE_EQ(rates.OfCorpus("a").seconds, 0.3);
  EXPECT_EQ(rates.OfCorpus("a").questions, 2u);
  EXPECT_EQ(rates.OfCorpus("b").questions, 0u);
  report.prompt_tokens = 100;
  rates.OnQuestion("", report);  // too short to say anything
  EXPECT_EQ(rates.PromptTokensPerSecond(), 0);
  report.prompt_tokens = 1512;
  report.cached_tokens = 512;
  report.first_token_ms = 1000;
  rates.OnQuestion("", report);
  EXPECT_DOUBLE_EQ(rates.PromptTokensPerSecond(), 2000);
  report.completion_tokens = 0;
  rates.OnQuestion("", report);
  EXPECT_DOUBLE_EQ(rates.PromptTokensPerSecond(), 2000);
}

TEST_F(RpcPlanTest, TooLargeASampleIsRefused) {
  v1::PlanRequest request;
  request.set_sample(std::string((size_t{4} << 20) + 1, 's'));
  EXPECT_EQ(client_->Plan(request).error().code_text, "invalid_argument");
}

TEST_F(RpcPlanTest, FilesLeftOutInsideSourcesAreCounted) {
  v1::IngestBegin begin;
  begin.set_name("a");
  begin.set_skipped_files(2);
  const auto reply = client_->Ingest(begin, [](IngestWriter& writer) {
    writer.set_skipped_files(3);
    return writer.BeginSource("x") && writer.Write("text") && writer.EndSource();
  });
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(client_->Show("a")->skipped_files(), 5u);
}

TEST(CorpusMessage, SaysWhatLayersOfChunksAndWindowsSave) {
  CorpusRecord record;
  record.chain = std::vector<Digest>(1000);
  record.block_bytes = 3000;
  EXPECT_EQ(ToMessage(record, {}, {}, std::nullopt, 0).keep_all_bytes(), 0u);
  record.parts = {{"c8192", 9000, 3, 70, {{990, 1000}}},
                  {"w512", 500, 1, 9, {{4, 8}, {996, 1000}}}};
  const v1::Corpus message = ToMessage(record, {}, {}, std::nullopt, 0);
  EXPECT_EQ(message.keep_all_bytes(), 1000u * 12500);
  ASSERT_EQ(message.parts_size(), 2);
  EXPECT_EQ(message.parts(0).kind(), "c8192");
  EXPECT_EQ(message.parts(0).blocks(), 10u);
  EXPECT_EQ(message.parts(0).bytes(), 90000u);
  EXPECT_EQ(message.parts(1).blocks(), 8u);
}

}  // namespace
}  // namespace corpusd
