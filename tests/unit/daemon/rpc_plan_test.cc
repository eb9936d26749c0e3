// Plans, and what an ingest says of the files that it left out.
#include <string>

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

}  // namespace
}  // namespace corpusd
