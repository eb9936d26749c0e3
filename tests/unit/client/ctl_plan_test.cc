// plan: the sample, the arithmetic, and the verb.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "client/ctl/corpus_plan.h"
#include "client/ctl/text_sample.h"
#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

TEST(TextSample, TakesAllOfAShortText) {
  TextSample sample;
  sample.Add("short ");
  sample.Add("text");
  EXPECT_EQ(sample.Text(), "short text");
  const std::string whole(TextSample::kPieceBytes * TextSample::kPiecesMax, 'x');
  TextSample full;
  full.Add(whole);
  EXPECT_EQ(full.Text(), whole);
}

TEST(TextSample, TakesALongOneEvenlyAndWhateverThePieces) {
  // Every piece of 4 KiB says where it lies.
  constexpr size_t kPieces = 5000;
  std::string text;
  for (size_t i = 0; i < kPieces; ++i) {
    std::string piece = std::to_string(i) + " ";
    piece.resize(TextSample::kPieceBytes, '.');
    text += piece;
  }
  std::string first;
  for (const size_t piece_bytes : {text.size(), size_t{1000}, size_t{4096}}) {
    TextSample sample;
    for (size_t at = 0; at < text.size(); at += piece_bytes) {
      sample.Add(std::string_view(text).substr(at, piece_bytes));
    }
    EXPECT_EQ(sample.text_bytes(), text.size());
    if (first.empty()) first = sample.Text();
    EXPECT_EQ(sample.Text(), first) << piece_bytes;
  }
  const size_t count = first.size() / TextSample::kPieceBytes;
  EXPECT_GT(count, TextSample::kPiecesMax / 2);
  EXPECT_LE(count, TextSample::kPiecesMax);
  for (size_t i = 0; i < count; ++i) {
    EXPECT_EQ(std::stoul(first.substr(i * TextSample::kPieceBytes)), i * 32);
  }
}

v1::PlanReply Reply() {
  v1::PlanReply reply;
  reply.set_sample_tokens(250);
  reply.set_preamble_tokens(20);
  reply.set_block_tokens(128);
  reply.set_exact_tokens_max(8000);
  reply.set_context_tokens(8192);
  reply.set_default_format("cq4");
  reply.set_model_name("tiny");
  reply.set_model_digest("aabb");
  for (const auto& [name, bytes] : {std::pair{"bf16", 1000u}, std::pair{"cq4", 260u}}) {
    reply.add_formats()->set_name(name);
    reply.mutable_formats()->rbegin()->set_block_bytes(bytes);
  }
  reply.mutable_economics()->set_currency("USD");
  reply.mutable_economics()->set_compute("2 CPU threads");
  reply.mutable_economics()->set_compute_hour_price(0.36);
  reply.mutable_economics()->set_rag_tokens(206);
  return reply;
}

TEST(CorpusPlan, AnExactCorpusPaysFromTheSecondQuestion) {
  const PlanText text = {
      .documents = 2, .text_bytes = 4000, .label_bytes = 20, .sample_bytes = 1000};
  const CorpusPlan plan = ReckonPlan(text, Reply(), "auto", PrefillRate{100, "x"});
  EXPECT_EQ(plan.mode, "exact");
  EXPECT_EQ(plan.tokens, 1020u);
  EXPECT_EQ(plan.blocks, 8u);
  EXPECT_DOUBLE_EQ(plan.prefill_seconds, 10.2);
  EXPECT_DOUBLE_EQ(ReckonPlan(text, Reply(), "auto", PrefillRate{100, "x", 2.5}).prefill_seconds,
                   12.7);
  EXPECT_EQ(plan.cold_tokens, 1020u);
  EXPECT_EQ(plan.break_even_questions, 2u);
  EXPECT_EQ(FormatBytesOf(plan, Reply().formats(1)), 8u * 260);
}

// Llama 4 Scout in bf16: 12 layers see everything, 36 see chunks of 8192 tokens.
TEST(CorpusPlan, LayersThatSeeAChunkAreCountedOnce) {
  v1::PlanReply reply = Reply();
  v1::PlanFormat& format = *reply.mutable_formats(0);
  format.set_block_bytes(uint64_t{48 * 128} << 10);
  v1::PlanPart& part = *format.add_parts();
  part.set_kind("c8192");
  part.set_block_bytes(uint64_t{144 * 128} << 10);
  part.set_blocks_max(69);
  reply.set_exact_tokens_max(10'000'000);
  const auto bytes_a_token = [&](uint64_t text_bytes, auto bytes_of) {
    const PlanText text = {
        .documents = 1, .text_bytes = text_bytes, .label_bytes = 2, .sample_bytes = 1000};
    const CorpusPlan plan = ReckonPlan(text, reply, "auto", std::nullopt);
    EXPECT_EQ(plan.mode, "exact");
    return static_cast<double>(bytes_of(plan, format)) / static_cast<double>(plan.tokens) / 1024;
  };
  EXPECT_NEAR(bytes_a_token(39'000'000, FormatBytesOf), 48.2, 0.1);
  EXPECT_NEAR(bytes_a_token(39'000'000, KeepAllBytesOf), 192, 0.1);
  EXPECT_NEAR(bytes_a_token(20'000, FormatBytesOf), 192, 5)
      << "within the first chunk, in whole blocks";
}

TEST(CorpusPlan, ALongCorpusIsSegmented) {
  const PlanText text = {
      .documents = 100, .text_bytes = 4000000, .label_bytes = 2500, .sample_bytes = 1000};
  const CorpusPlan plan = ReckonPlan(text, Reply(), "auto", std::nullopt);
  EXPECT_EQ(plan.mode, "segmented");
  EXPECT_EQ(plan.tokens, 20u + 1000000 + 600 + 1000);
  EXPECT_EQ(plan.blocks, plan.tokens / 128 + 50 + 1);
  EXPECT_EQ(plan.cold_tokens, 8000u);
  EXPECT_EQ(plan.break_even_questions, (plan.tokens + 7935) / 7936);
  EXPECT_FALSE(plan.rate);
  EXPECT_EQ(ReckonPlan(text, Reply(), "exact", std::nullopt).mode, "exact");
}

TEST(CorpusPlan, TheRateIsOfTheSameModeAndModel) {
  v1::ListReply list;
  const auto add = [&](const char* name, const char* mode, const char* digest, uint64_t tokens,
                       double rate) {
    v1::Corpus& corpus = *list.add_corpora();
    corpus.set_name(name);
    corpus.set_mode(mode);
    corpus.set_model_digest(digest);
    corpus.set_tokens(tokens);
    corpus.set_prefill_tokens_per_s(rate);
  };
  EXPECT_FALSE(MeasuredRate(list, "exact", "aabb"));
  add("other-model", "exact", "ccdd", 9000, 1);
  add("not-measured", "exact", "aabb", 9000, 0);
  EXPECT_FALSE(MeasuredRate(list, "exact", "aabb"));
  add("other-mode", "segmented", "aabb", 9000, 2);
  EXPECT_EQ(MeasuredRate(list, "exact", "aabb")->corpus, "other-mode");
  add("small", "exact", "aabb", 10, 3);
  add("large", "exact", "aabb", 100, 4);
  EXPECT_EQ(MeasuredRate(list, "exact", "aabb")->corpus, "large");
}

TEST(CorpusPlan, Tiers) {
  v1::DiskUsageReply usage;
  v1::Tier& disk = *usage.add_tiers();
  disk.set_name("disk");
  disk.set_capacity_bytes(100);
  disk.set_free_bytes(40);
  disk.set_pinned_bytes(30);
  EXPECT_EQ(FitIn(usage, "disk", 40), "yes");
  EXPECT_EQ(FitIn(usage, "disk", 70), "after eviction");
  EXPECT_EQ(FitIn(usage, "disk", 71), "no");
  EXPECT_EQ(FitIn(usage, "device", 1), "none");
}

class CtlPlan : public ::testing::Test {
 protected:
  CtlPlan() : daemon_([this](const v1::Request& request) { return Respond(request); }) {
    std::string pattern = (fs::temp_directory_path() / "ctl-plan-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    std::ofstream(folder_ / "a.txt") << std::string(1000, 'a');
    std::ofstream(folder_ / "b.png", std::ios::binary) << std::string("\x89PNG\0", 5);
  }
  ~CtlPlan() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::vector<v1::Response> Respond(const v1::Request& request) {
    v1::Response response = LastResponse();
    switch (request.body_case()) {
      case v1::Request::kPlan:
        *response.mutable_plan() = Reply();
        for (const uint32_t ranks : request.plan().ranks()) {
          response.mutable_plan()->add_ranks()->set_ranks(ranks);
          response.mutable_plan()->mutable_ranks()->rbegin()->set_measured_on("H200");
        }
        break;
      case v1::Request::kList:
        *response.mutable_list() = list_;
        break;
      case v1::Request::kDiskUsage:
        response.mutable_disk_usage()->add_tiers()->set_name("disk");
        response.mutable_disk_usage()->mutable_tiers(0)->set_capacity_bytes(1000);
        response.mutable_disk_usage()->mutable_tiers(0)->set_free_bytes(1000);
        break;
      case v1::Request::kIngestEnd:
        response.mutable_ingest()->mutable_job()->set_id(7);
        break;
      case v1::Request::kWatchJob:
        response.mutable_job()->set_state("done");
        break;
      case v1::Request::kShow:
        response.mutable_corpus()->set_prefill_tokens_per_s(10);
        response.mutable_corpus()->set_prefill_seconds(prefill_seconds_);
        break;
      case v1::Request::kRemove:
        response.mutable_empty();
        break;
      default:
        return {};
    }
    return {response};
  }
  CtlRun Run(Words words) const {
    words.insert(words.begin(), {"plan", folder_.string(), "--socket", daemon_.socket_path()});
    return RunCtl(words);
  }

  fs::path folder_;
  v1::ListReply list_;
  double prefill_seconds_ = 1000;  // longer than the call: none is fixed
  ScriptedDaemon daemon_;
};

TEST_F(CtlPlan, SaysWhatItWouldTake) {
  v1::Corpus& corpus = *list_.add_corpora();
  corpus.set_name("docs");
  corpus.set_model_digest("aabb");
  corpus.set_mode("exact");
  corpus.set_prefill_tokens_per_s(27);
  const CtlRun run = Run({});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("about 270 (tokenized by the daemon)"));
  EXPECT_THAT(run.out, HasSubstr("about 10s at 27 tok/s, measured on docs"));
  EXPECT_THAT(run.out, HasSubstr("from question 2 on, against prefilling 270 tokens"));
  EXPECT_THAT(run.out, HasSubstr("10s of 2 CPU threads, 0.0010 USD"));
  EXPECT_THAT(run.out, HasSubstr("from question 2 on against retrieving 206 tokens for each"));
  EXPECT_THAT(run.out, HasSubstr("cq4 (default)    780 B  none    none  yes"));
  EXPECT_THAT(run.err, HasSubstr("skipped 1 binary file"));
  EXPECT_EQ(daemon_.requests().front().plan().sample(), std::string(1000, 'a'));
}

TEST_F(CtlPlan, ObjectsAndNames) {
  const Json plan = Json::parse(Run({"-o", "json"}).out);
  EXPECT_EQ(plan["documents"], 1);
  EXPECT_EQ(plan["tokens"], 270);
  EXPECT_EQ(plan["formats"][0]["bytes"], 3000);
  EXPECT_EQ(plan["formats"][0]["keep_all_bytes"], 3000);
  EXPECT_EQ(plan["formats"][0]["fits"]["disk"], "no");
  EXPECT_TRUE(plan["prefill"].is_null());
  EXPECT_TRUE(plan["cost"]["break_even_questions"]["rag"].is_null());
  EXPECT_EQ(plan["cost"]["rag"]["tokens"], 206);
  EXPECT_EQ(plan["skipped"]["counts"]["binary"], 1);
  EXPECT_EQ(Run({"-o", "name", "-q"}).out, "270\n");
}

TEST_F(CtlPlan, MeasuresWithACorpusThatItRemoves) {
  const CtlRun run = Run({"--measure"});
  EXPECT_THAT(run.out, HasSubstr("about 27s at 10 tok/s, measured on a sample"));
  std::string made;
  std::string removed;
  for (const v1::Request& request : daemon_.requests()) {
    if (request.has_ingest_begin()) made = request.ingest_begin().name();
    if (request.has_remove()) removed = request.remove().name();
  }
  EXPECT_FALSE(made.empty());
  EXPECT_EQ(made, removed);
}

TEST_F(CtlPlan, MeasuresWithDocumentsOfTheCorpusMeanSize) {
  std::ofstream(folder_ / "a.txt") << std::string(40000, 'a');
  for (int i = 0; i < 9; ++i) std::ofstream(folder_ / ("s" + std::to_string(i))) << "short text";
  EXPECT_EQ(Run({"--measure"}).exit_code, 0);
  size_t documents = 0;
  for (const v1::Request& request : daemon_.requests()) {
    documents += request.has_ingest_data() && !request.ingest_data().path().empty() ? 1 : 0;
  }
  EXPECT_EQ(documents, 4u) << "16 KiB of documents of 4,009 bytes";
}

TEST_F(CtlPlan, MeasuresMoreOfTheSampleWhereALittleTakesNoTime) {
  std::ofstream(folder_ / "a.txt") << std::string(400'000, 'a');
  prefill_seconds_ = 0.01;
  EXPECT_EQ(Run({"--measure"}).exit_code, 0);
  std::vector<size_t> bytes;
  size_t removed = 0;
  for (const v1::Request& request : daemon_.requests()) {
    if (request.has_ingest_begin()) bytes.push_back(0);
    if (request.has_ingest_data()) bytes.back() += request.ingest_data().content().size();
    removed += request.has_remove() ? 1 : 0;
  }
  // All there is at last.
  EXPECT_EQ(bytes, (std::vector<size_t>{16 << 10, 128 << 10, 400'000}));
  EXPECT_EQ(removed, 3u);
}

TEST_F(CtlPlan, OnPaperNeedsNoText) {
  const Words words = {"plan", "--ranks", "8,64", "--tokens", "1000000"};
  const auto run = [&](Words more) {
    more.insert(more.begin(), words.begin(), words.end());
    more.insert(more.end(), {"--socket", daemon_.socket_path()});
    return RunCtl(more);
  };
  const CtlRun shown = run({});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, StartsWith("H200S  EXACT PREFILL"));
  ASSERT_EQ(daemon_.requests().size(), 1u);
  EXPECT_EQ(daemon_.requests().front().plan().tokens(), 1'000'000u);
  const Json plan = Json::parse(run({"-o", "json"}).out);
  EXPECT_EQ(plan["tokens"], 1'000'000);
  EXPECT_EQ(plan["ranks"][1]["ranks"], 64);
  EXPECT_EQ(RunCtl({"plan", "--ranks", "8,64"}).exit_code, 2);  // of how many tokens?
}

TEST_F(CtlPlan, RefusesAnotherModelAndNothing) {
  EXPECT_EQ(Run({"--model", "tiny"}).exit_code, 0);
  EXPECT_EQ(Run({"--model", "aab"}).exit_code, 0);
  const CtlRun other = Run({"--model", "huge"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("serves model 'tiny'"));
  fs::remove(folder_ / "a.txt");
  EXPECT_EQ(Run({}).exit_code, 9);
}

}  // namespace
}  // namespace corpusd::ctl
