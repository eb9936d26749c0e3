// Retrieval heads of a model that none are known of: looked for once, kept, part of the index.
#include <filesystem>
#include <fstream>

#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

class SegmentedHeadsTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.File("text");
    std::ofstream(options_.calibration_text) << Prose(3000, 5);
    options_.on_head_search = [this](size_t done, size_t passes) {
      EXPECT_LE(done, passes);
      ++passes_told_;
    };
    SegmentedFixture::SetUp();
  }

  void RestartWith(const std::string& heads) {
    options_.retrieval_heads = heads;
    Restart();
  }

  std::vector<std::byte> Index(const std::string& corpus) {
    auto bytes = store_->Sidecar(store_->GetCorpus(corpus)->id, "retrieval_index");
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    return *std::move(bytes);
  }

  size_t passes_told_ = 0;
};

TEST_F(SegmentedHeadsTest, AreLookedForOnceAndKeptBesideTheCalibrations) {
  RestartWith("");
  EXPECT_EQ(passes_told_, 0u) << "only when a segmented corpus wants them";
  IngestSegmented("c", {{"a", Prose(60, 1)}, {"b", Needle()}});
  EXPECT_GT(passes_told_, 10u);
  size_t kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options_.calibration_dir)) {
    kept += entry.path().extension() == ".ckvheads" ? 1 : 0;
  }
  EXPECT_EQ(kept, 1u);
  const auto index = Index("c");
  passes_told_ = 0;
  Restart();
  const auto report = Ask("c");
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(passes_told_, 0u);
  EXPECT_EQ(Index("c"), index) << "the one kept is of these heads";
}

TEST_F(SegmentedHeadsTest, AnIndexOfOtherHeadsIsMadeAnew) {
  RestartWith("1.0");
  IngestSegmented("c", {{"a", Prose(60, 1)}, {"b", Needle()}});
  const auto index = Index("c");
  RestartWith("0.1,1.0");
  const auto report = Ask("c");
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_GT(Index("c").size(), index.size()) << "keys of two heads";
  RestartWith("9.9");
  EXPECT_EQ(Ask("c").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
