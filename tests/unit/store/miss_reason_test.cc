// Notes of what was evicted: kept across restarts, bounded, and never in the way.
#include "store/miss_reason.h"

#include "store/base/clock.h"
#include "store/catalog.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

EvictionNote NoteOf(uint64_t corpus_id, uint64_t first_block, uint64_t blocks, int64_t when_ms) {
  EvictionNote note;
  note.corpus = "c" + std::to_string(corpus_id);
  note.corpus_id = corpus_id;
  note.first_block = first_block;
  note.blocks = blocks;
  note.bytes = blocks * 10;
  note.first_digest.bytes[0] = static_cast<uint8_t>(first_block);
  note.when_ms = when_ms;
  note.detail = "room for 'b'";
  return note;
}

TEST(EvictionNote, ComesBackAsItWasAndDamageIsRefused) {
  const EvictionNote note = NoteOf(7, 90, 10, 123456);
  const std::string bytes = EncodeEvictionNote(note);
  ASSERT_TRUE(DecodeEvictionNote(bytes).ok());
  EXPECT_EQ(*DecodeEvictionNote(bytes), note);
  for (const std::string& damaged :
       {bytes.substr(0, bytes.size() / 2), std::string("{}"), std::string("[1]"), std::string()}) {
    EXPECT_EQ(DecodeEvictionNote(damaged).status().code(), StatusCode::kCorruption) << damaged;
  }
}

class CatalogNotesTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    store_.reset();
    Open();
  }
  void Open() {
    catalog_.reset();
    auto catalog = Catalog::Open(folder_ + "/notes");
    ASSERT_TRUE(catalog.ok()) << catalog.status().ToString();
    catalog_ = std::move(*catalog);
  }
  void TearDown() override {
    catalog_.reset();
    StoreFixture::TearDown();
  }
  void Note(const EvictionNote& note) {
    Catalog::Change change;
    catalog_->NoteEviction(note, &change);
    ASSERT_TRUE(catalog_->Commit(change, /*sync=*/false).ok());
  }
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogNotesTest, TheTailsOfOneCorpusAreJoinedWhenThereAreTooMany) {
  const size_t count = kEvictionNotesPerCorpus + 9;
  for (size_t i = 0; i < count; ++i) Note(NoteOf(1, 1000 - 10 * i, 10, static_cast<int64_t>(i)));
  Note(NoteOf(2, 5, 5, 0));
  const auto check = [&] {
    const auto notes = catalog_->EvictionNotes();
    uint64_t blocks = 0;
    size_t own = 0;
    for (const EvictionNote& note : notes) {
      if (note.corpus_id != 1) continue;
      blocks += note.blocks;
      ++own;
    }
    EXPECT_EQ(own, kEvictionNotesPerCorpus);
    EXPECT_EQ(blocks, 10 * count) << "joined, not lost";
    EXPECT_EQ(notes.size(), own + 1);
    EXPECT_TRUE(std::is_sorted(notes.begin(), notes.end(),
                               [](const auto& a, const auto& b) { return a.when_ms < b.when_ms; }));
  };
  check();
  Open();
  check();
}

TEST_F(CatalogNotesTest, EvictedAgainTellsOfTheLastTimeOnly) {
  Note(NoteOf(1, 50, 10, 1));
  Note(NoteOf(1, 40, 10, 2));
  Note(NoteOf(1, 40, 30, 3));  // it was built again, and went again
  ASSERT_EQ(catalog_->EvictionNotes().size(), 1u);
  EXPECT_EQ(catalog_->EvictionNotes()[0], NoteOf(1, 40, 30, 3));
  Open();
  EXPECT_EQ(catalog_->EvictionNotes().size(), 1u);
}

TEST_F(CatalogNotesTest, TheOldestOfAllAreForgotten) {
  const size_t count = kEvictionNotesMax + 20;
  for (size_t i = 0; i < count; ++i) Note(NoteOf(i + 1, 0, 1, static_cast<int64_t>(i)));
  Open();
  const auto notes = catalog_->EvictionNotes();
  ASSERT_EQ(notes.size(), kEvictionNotesMax);
  EXPECT_EQ(notes.front().when_ms, 20);
  EXPECT_EQ(notes.back().when_ms, static_cast<int64_t>(count - 1));
}

using MissReasonTest = StoreFixture;

TEST_F(MissReasonTest, WhatLeftIsRememberedWithWhenAndWhy) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  Ingest("a", corpus);
  Ingest("b", MakeCorpus(2, 3));
  EXPECT_TRUE(store_->EvictionNotes().empty());
  const int64_t before = WallTimeMs();
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, /*dry_run=*/true).ok());
  ASSERT_TRUE(store_->Evict("a", TierKind::kHost, /*dry_run=*/false).ok());
  EXPECT_TRUE(store_->EvictionNotes().empty()) << "nothing left the disk";
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, /*dry_run=*/false).ok());
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  Reopen();
  const auto notes = store_->EvictionNotes();
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_EQ(notes[0].corpus, "a");
  EXPECT_EQ(notes[0].first_block, 0u);
  EXPECT_EQ(notes[0].blocks, 4u);
  EXPECT_EQ(notes[0].bytes, 4 * kTestBlockBytes);
  EXPECT_EQ(notes[0].first_digest, corpus.chain[0]);
  EXPECT_GE(notes[0].when_ms, before);
  EXPECT_EQ(notes[0].reason, EvictionReason::kAsked);
  EXPECT_EQ(notes[1].corpus, "b");
  EXPECT_EQ(notes[1].reason, EvictionReason::kRemoved);
}

TEST_F(MissReasonTest, ACorpusWhoseTimeWasOverSaysSo) {
  CorpusRecord record = Ingest("a", MakeCorpus(1, 2));
  record.expires_at_ms = WallTimeMs() - 1;
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  ASSERT_EQ(store_->EvictionNotes().size(), 1u);
  EXPECT_EQ(store_->EvictionNotes()[0].reason, EvictionReason::kExpired);
}

}  // namespace
}  // namespace corpusd
