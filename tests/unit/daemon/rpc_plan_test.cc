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
