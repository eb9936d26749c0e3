// Indexes that are loaded before anybody asks: who asks meanwhile waits for his own alone.
#include "engine/segment/loaded_corpora.h"

#include <atomic>
#include <future>

#include "engine/model/model_source.h"
#include "tests/support/fake_block_store.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

// What another store holds of corpora; the index of one of them is not read until it may be.
class GatedStore : public FakeBlockStore {
 public:
  explicit GatedStore(const BlockStore& store)
      : FakeBlockStore(std::make_shared<FakeDisk>()), store_(store) {}

  Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const override {
    return store_.CorpusTokens(name);
  }
  Result<std::shared_ptr<const SidecarReader>> OpenSidecar(uint64_t corpus_id,
                                                           std::string_view kind) const override {
    ASSIGN_OR_RETURN(auto reader, store_.OpenSidecar(corpus_id, kind));
    return std::make_shared<const GatedReader>(*this, corpus_id, std::move(reader));
  }

  uint64_t held_id = 0;
  std::promise<void> begun;  // reading the held one
  std::promise<void> allowed;
  std::shared_future<void> allowed_ = allowed.get_future().share();
  mutable std::atomic<int> reads{0};  // of the held one

 private:
  class GatedReader : public SidecarReader {
   public:
    GatedReader(const GatedStore& store, uint64_t id, std::shared_ptr<const SidecarReader> reader)
        : store_(store), id_(id), reader_(std::move(reader)) {}
    uint64_t bytes() const override { return reader_->bytes(); }
    Status Read(uint64_t offset, std::span<std::byte> bytes) const override {
      if (id_ == store_.held_id) {
        if (store_.reads++ == 0) const_cast<GatedStore&>(store_).begun.set_value();
        store_.allowed_.wait();
      }
      return reader_->Read(offset, bytes);
    }

   private:
    const GatedStore& store_;
    const uint64_t id_;
    const std::shared_ptr<const SidecarReader> reader_;
  };

  const BlockStore& store_;
};

class LoadedCorporaTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    SegmentedFixture::SetUp();
    for (const std::string name : {"a", "b", "c"}) {
      IngestSegmented(name, {{name + ".txt", Prose(400, name[0])}});
    }
    Restart();
  }
  uint64_t Load(std::stop_token stop = {}) {
    const auto loaded = engine_->LoadIndexes(stop);
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    return loaded.ok() ? *loaded : 0;
  }
};

TEST_F(LoadedCorporaTest, EachIsLoadedOnceAndAnswersAreTheSame) {
  const auto cold = Ask("a");
  ASSERT_TRUE(cold.ok()) << cold.status().ToString();
  EXPECT_EQ(Load(), 2u) << "the one that was asked is there";
  EXPECT_EQ(Load(), 0u);
  Restart();
  EXPECT_EQ(Load(), 3u);
  const auto warm = Ask("a");
  ASSERT_TRUE(warm.ok());
  EXPECT_EQ(warm->answer, cold->answer);
  EXPECT_EQ(warm->selection->top_blocks, cold->selection->top_blocks);
}

TEST_F(LoadedCorporaTest, WhoStopsItIsNotKeptWaiting) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(engine_->LoadIndexes(stop.get_token()).status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(Ask("a").ok());
}

TEST_F(LoadedCorporaTest, AQuestionWaitsForItsOwnCorpusAlone) {
  const auto source = OpenModelSource(options_.model_path);
  ASSERT_TRUE(source.ok());
  const auto tokenizer = (*source)->LoadTokenizer();
  const ModelConfig& config = (*source)->config();
  const IndexLayout layout(
      *RetrievalHeads::FromNames(HeadShapeOf(config), options_.retrieval_heads), config.rope);
  const IndexScanner scanner(2);
  GatedStore store(*store_);
  LoadedCorpora corpora(store, **tokenizer, layout, scanner);
  const CorpusRecord a = *store_->GetCorpus("a"), b = *store_->GetCorpus("b");
  store.held_id = a.id;
  auto ahead = std::async(std::launch::async, [&] { return corpora.LoadAhead(a, {}); });
  store.begun.get_future().wait();
  // The index of a is on its way: b does not wait for it, and who asks for a does not read it
  // again.
  const auto other = corpora.Get(b, KvLayout());
  EXPECT_TRUE(other.ok() && (*other)->record.name == "b") << other.status().ToString();
  auto own = std::async(std::launch::async, [&] { return corpora.Get(a, KvLayout()); });
  EXPECT_EQ(own.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  store.allowed.set_value();
  EXPECT_TRUE(ahead.get());
  const auto got = own.get();
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ((*got)->record.name, "a");
  EXPECT_EQ(store.reads, 1);
}

}  // namespace
}  // namespace corpusd
