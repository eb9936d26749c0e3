// One flipped bit in a file of the store: found, or harmless; never served. In segment files every
// byte of every header and 1,000 random places; in the catalogue's files a sample, which
// CORPUSD_FLIPS makes larger.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "store/catalog.h"
#include "store/payload_store.h"
#include "tests/property/store_invariants.h"

namespace corpusd {
namespace {

constexpr size_t kRandomFlips = 1000;
constexpr size_t kSegmentHeaderBytes = 20;
constexpr size_t kBlockHeaderBytes = 64 + 4 * kTestSections;

void Flip(const std::filesystem::path& path, uint64_t offset, unsigned bit) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ (1 << bit));
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  ASSERT_TRUE(file.good()) << path << " at " << offset;
}

class BitFlipTest : public StoreFixture {};

TEST_F(BitFlipTest, InASegmentIsFoundOrHarmless) {
  std::mt19937_64 random(TestSeed());
  const TestCorpus corpus = MakeCorpus(1, 6);
  Ingest("a", corpus);
  store_.reset();
  std::vector<ChainEntry> entries;
  std::map<uint64_t, uint64_t> named;
  {
    const auto catalog = Catalog::Open(folder_ + "/catalog");
    ASSERT_TRUE(catalog.ok());
    entries = *(*catalog)->Entries(corpus.chain);
    named = (*catalog)->NamedExtents();
  }
  const auto path = std::filesystem::directory_iterator(folder_ + "/segments")->path();
  const uint64_t bytes = std::filesystem::file_size(path);
  std::set<uint64_t> guarded;  // bytes that a checksum must cover
  std::vector<uint64_t> places;
  for (uint64_t i = 0; i < kSegmentHeaderBytes; ++i) places.push_back(i);
  for (const ChainEntry& entry : entries) {
    const uint64_t start =
        (SegmentStore::FirstPageOf(entry.location.extent) + entry.location.ordinal) * kDirectPage;
    for (uint64_t i = 0; i < kBlockHeaderBytes; ++i) {
      places.push_back(start + i);
      guarded.insert(start + i);
    }
  }
  for (size_t i = 0; i < kRandomFlips; ++i) places.push_back(random() % bytes);
  PageBuffer buffer(PagesOf(kTestBlockBytes));
  for (const uint64_t place : places) {
    const auto bit = static_cast<unsigned>(random() % 8);
    SCOPED_TRACE("bit " + std::to_string(bit) + " of byte " + std::to_string(place));
    Flip(path, place, bit);
    const auto payload = PayloadStore::Open(folder_, named);
    ASSERT_TRUE(payload.ok()) << payload.status().ToString();
    size_t refused = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto target = buffer.bytes().first(kTestBlockBytes);
      const Status status = (*payload)->Read(entries[i].location, corpus.chain[i],
                                             entries[i].tokens, entries[i].sections, target);
      const auto expected = PayloadOf(corpus.chain[i]);
      if (status.ok()) {
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), target.begin())) << "served wrong";
      } else {
        ++refused;
      }
    }
    if (guarded.contains(place)) {
      EXPECT_EQ(refused, 1u) << "a header's byte is its block's alone";
    }
    EXPECT_LE(refused, 1u);
    Flip(path, place, bit);
    if (HasFailure()) return;
  }
}

TEST_F(BitFlipTest, InTheCatalogueIsFoundOrHarmless) {
  std::mt19937_64 random(TestSeed());
  const std::map<std::string, TestCorpus> corpora = {{"a", MakeCorpus(1, 3, 2)},
                                                     {"b", MakeCorpus(2, 3, 2)}};
  for (const auto& [name, corpus] : corpora) Ingest(name, corpus);
  Reopen();  // the log becomes tables
  ASSERT_TRUE(store_->NoteUse("a").ok());
  store_.reset();
  const std::string whole = folder_ + ".whole";
  std::filesystem::copy(folder_, whole, std::filesystem::copy_options::recursive);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(whole + "/catalog")) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path());
  }
  const char* const variable = std::getenv("CORPUSD_FLIPS");
  const size_t flips = variable != nullptr ? std::strtoul(variable, nullptr, 10) : 16;
  for (size_t i = 0; i < flips; ++i) {
    const auto& file = files[i % files.size()];
    const uint64_t place = random() % std::filesystem::file_size(file);
    SCOPED_TRACE(file.filename().string() + " at " + std::to_string(place));
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(whole, folder_, std::filesystem::copy_options::recursive);
    Flip(folder_ + "/catalog/" + file.filename().string(), place,
         static_cast<unsigned>(random() % 8));
    auto store = BlockStore::Open(options_);
    if (!store.ok()) {  // found
      EXPECT_FALSE(store.status().message().empty());
      continue;
    }
    for (const CorpusRecord& record : (*store)->ListCorpora()) {
      const auto known = corpora.find(record.name);
      ASSERT_NE(known, corpora.end()) << record.name;
      FetchStats stats;
      const auto refs = (*store)->Fetch(known->second.chain, &stats);
      for (size_t b = 0; refs.ok() && b < refs->size(); ++b) {
        if (!(*refs)[b].valid()) continue;
        const auto expected = PayloadOf(known->second.chain[b]);
        const auto got = (*refs)[b].bytes();
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), got.begin(), got.end()));
      }
      const auto tokens = (*store)->CorpusTokens(record.name);
      if (tokens.ok()) {
        EXPECT_EQ(*tokens, known->second.tokens);
      }
    }
  }
  std::filesystem::remove_all(whole);
}

}  // namespace
}  // namespace corpusd
