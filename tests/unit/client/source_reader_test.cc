#include "client/sources/source_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <clocale>
#include <filesystem>
#include <fstream>
#include <functional>

#include "client/sources/packed_file.h"
#include "recorded_documents.h"

namespace corpusd::sources {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

struct Member {
  std::string name;
  std::string content;
  mode_t type = AE_IFREG;
};

class SourceReading : public ::testing::Test {
 protected:
  SourceReading() {
    std::string pattern = (fs::temp_directory_path() / "source-reader-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~SourceReading() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  std::string At(const std::string& name) const { return (root_ / name).string(); }
  void Write(const std::string& name, std::string_view text) const {
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  static void AddMember(archive* writer, const Member& member) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, member.name.c_str());
    archive_entry_set_filetype(entry, member.type);
    archive_entry_set_perm(entry, 0644);
    if (member.type == AE_IFLNK) archive_entry_set_symlink(entry, member.content.c_str());
    if (member.type == AE_IFREG) {
      archive_entry_set_size(entry, static_cast<int64_t>(member.content.size()));
    }
    ASSERT_EQ(archive_write_header(writer, entry), ARCHIVE_OK) << archive_error_string(writer);
    if (member.type == AE_IFREG) {
      archive_write_data(writer, member.content.data(), member.content.size());
    }
    archive_entry_free(entry);
  }
  // The form of the archive by its name, as tar -a takes it.
  void Pack(const std::string& name, const std::vector<Member>& members) const {
    // libarchive writes names as the locale has them; it is read without one.
    setlocale(LC_CTYPE, "C.UTF-8");
    archive* writer = archive_write_new();
    if (name.ends_with(".tar.zst")) {
      ASSERT_EQ(archive_write_set_format_pax_restricted(writer), ARCHIVE_OK);
      ASSERT_EQ(archive_write_add_filter_zstd(writer), ARCHIVE_OK);
    } else {
      ASSERT_EQ(archive_write_set_format_filter_by_ext(writer, name.c_str()), ARCHIVE_OK);
    }
    ASSERT_EQ(archive_write_open_filename(writer, At(name).c_str()), ARCHIVE_OK);
    for (const Member& member : members) AddMember(writer, member);
    archive_write_close(writer);
    archive_write_free(writer);
    setlocale(LC_CTYPE, "C");
  }
  void Compress(const std::string& name, std::string_view text,
                const std::function<int(archive*)>& filter) const {
    archive* writer = archive_write_new();
    ASSERT_EQ(filter(writer), ARCHIVE_OK);
    ASSERT_EQ(archive_write_set_format_raw(writer), ARCHIVE_OK);
    ASSERT_EQ(archive_write_open_filename(writer, At(name).c_str()), ARCHIVE_OK);
    AddMember(writer, {"data", std::string(text)});
    archive_write_close(writer);
    archive_write_free(writer);
  }

  // Reads everything below the root. Names of documents are given without the root.
  ClientResult<bool> ReadAll() {
    auto list = ListSources({root_.string()});
    EXPECT_TRUE(list.ok());
    skips_ = list->skipped;
    reader_ = std::make_unique<SourceReader>(options_, documents_, skips_);
    for (const SourceFile& file : list->files) {
      auto read = reader_->ReadFile(file);
      if (!read.ok() || !*read) return read;
    }
    EXPECT_EQ(reader_->read_bytes(), list->bytes);
    return true;
  }
  std::vector<RecordedDocuments::Document> Documents() const {
    std::vector<RecordedDocuments::Document> named = documents_.documents();
    for (auto& document : named) document.first.erase(0, root_.string().size() + 1);
    return named;
  }

  fs::path root_;
  ReadOptions options_;
  RecordedDocuments documents_;
  SkipLog skips_;
  std::unique_ptr<SourceReader> reader_;
};

TEST_F(SourceReading, EveryKindOfFile) {
  Write("a.txt", "caf\xE9 noir, a text in Latin-1\n");
  Write("b.log", "one\ntwo\n");
  Write("c.jsonl", "{\"t\":\"x\"}\n");
  Write("d.eml", "Subject: s\n\nbody\n");
  Write("e.mbox", "From x Mon 10:00:00 2026\nSubject: s\n\nbody\n");
  Write("f.txt", std::string_view("\xFF\xFEh\0i\0\n\0", 8));
  ASSERT_TRUE(ReadAll().ok());
  EXPECT_THAT(Documents(),
              ElementsAre(Pair("a.txt", "café noir, a text in Latin-1\n"),
                          Pair("b.log#L1-L2", "one\ntwo\n"), Pair("c.jsonl#L1", "t: x\n"),
                          Pair("d.eml", "Subject: s\n\nbody\n"),
                          Pair("e.mbox#1 s", "Subject: s\n\nbody\n"), Pair("f.txt", "hi\n")));
  EXPECT_EQ(reader_->documents(), 6u);
  EXPECT_EQ(reader_->converted(), 2u);
  EXPECT_EQ(skips_.total(), 0u);
}

TEST_F(SourceReading, ArchivesOfEveryForm) {
  const std::vector<Member> members = {{"d", "", AE_IFDIR},
                                       {"d/a.txt", "alpha\n"},
                                       {"../../etc/passwd", "only a label\n"},
                                       {"d/b.png", std::string("\x89PNG\0", 5)},
                                       {"d/empty", ""},
                                       {"d/inner.zip", "PK"},
                                       {"d/app.log", "one\ntwo\n"},
                                       {"d/l\xC3\xA4nk", "a.txt", AE_IFLNK},
                                       {"d/\xE6\xBC\xA2.txt", "kanji\n"}};
  for (const char* name : {"x.tar", "x.tar.gz", "x.tar.xz", "x.tar.zst", "x.zip"}) {
    SCOPED_TRACE(name);
    fs::remove_all(root_);
    fs::create_directory(root_);
    documents_ = {};
    Pack(name, members);
    ASSERT_TRUE(ReadAll().ok());
    const std::string prefix = std::string(name) + "!";
    EXPECT_THAT(Documents(), ElementsAre(Pair(prefix + "d/a.txt", "alpha\n"),
                                         Pair(prefix + "../../etc/passwd", "only a label\n"),
                                         Pair(prefix + "d/app.log#L1-L2", "one\ntwo\n"),
                                         Pair(prefix + "d/漢.txt", "kanji\n")));
    EXPECT_EQ(skips_.count(SkipReason::kBinary), 1u);
    EXPECT_EQ(skips_.count(SkipReason::kEmpty), 1u);
    EXPECT_EQ(skips_.count(SkipReason::kNestedArchive), 1u);
    EXPECT_EQ(skips_.count(SkipReason::kLink), 1u);
    EXPECT_EQ(skips_.total(), 4u);
  }
}

TEST_F(SourceReading, CompressedFiles) {
  Compress("app.log.1.gz", "one\ntwo\n", archive_write_add_filter_gzip);
  Compress("notes.txt.xz", "notes\n", archive_write_add_filter_xz);
  Compress("r.zst", std::string("bin\0ary", 7), archive_write_add_filter_zstd);
  Write("z.gz", "was never compressed\n");
  ASSERT_TRUE(ReadAll().ok());
  EXPECT_THAT(Documents(),
              ElementsAre(Pair("app.log.1.gz#L1-L2", "one\ntwo\n"), Pair("notes.txt.xz", "notes\n"),
                          Pair("z.gz", "was never compressed\n")));
  EXPECT_EQ(skips_.count(SkipReason::kBinary), 1u);
}

TEST_F(SourceReading, BrokenArchivesAreSkippedFromWhereTheyBreak) {
  std::string noise(200000, ' ');
  uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>('a' + (state = state * 1664525 + 1013904223) % 26);
  Pack("cut.tar.gz", {{"a.txt", "whole\n"}, {"b.txt", noise}, {"c.txt", "lost\n"}});
  fs::resize_file(At("cut.tar.gz"), fs::file_size(At("cut.tar.gz")) / 2);
  Write("none.zip", "this is no archive, but it says so\n");
  Pack("whole.zip", {{"a.txt", "fine\n"}});
  ASSERT_TRUE(ReadAll().ok());
  const auto documents = Documents();
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_THAT(documents[0], Pair("cut.tar.gz!a.txt", "whole\n"));
  EXPECT_EQ(documents[1].first, "cut.tar.gz!b.txt");
  EXPECT_LT(documents[1].second.size(), noise.size());
  EXPECT_THAT(documents[2], Pair("whole.zip!a.txt", "fine\n"));
  EXPECT_EQ(skips_.count(SkipReason::kBroken), 2u);
  EXPECT_THAT(skips_.items()[0].detail, HasSubstr("cut.tar.gz' failed: "));
}

TEST_F(SourceReading, BombsAreRefused) {
  options_.unpacked_bytes_max = 1000000;
  Pack("bomb.tar.gz", {{"a.txt", std::string(3000000, 'a')}});
  auto text = ReadAll();
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code_text, "resource_exhausted");
  EXPECT_THAT(text.error().message, HasSubstr("--max-bytes"));
  documents_ = {};
  fs::remove(At("bomb.tar.gz"));
  // What is passed over counts as well, where it has to be unpacked.
  Pack("zeros.tar.gz", {{"a.bin", std::string(3000000, '\0')}, {"b.txt", "b"}});
  EXPECT_FALSE(ReadAll().ok());
  fs::remove(At("zeros.tar.gz"));
  for (const char* name : {"1.txt.gz", "2.txt.gz", "3.txt.gz"}) {
    Compress(name, std::string(400000, 'x'), archive_write_add_filter_gzip);
  }
  documents_ = {};
  EXPECT_FALSE(ReadAll().ok());  // all together
}

TEST_F(SourceReading, StopsWhenToldTo) {
  Pack("a.tar", {{"a.txt", "a"}, {"b.txt", "b"}, {"c.txt", "c"}});
  documents_.documents_max = 1;
  auto read = ReadAll();
  ASSERT_TRUE(read.ok());
  EXPECT_FALSE(*read);
  std::atomic<bool> interrupted{true};
  options_.interrupted = &interrupted;
  documents_ = {};
  auto stopped = ReadAll();
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code_text, "interrupted");
}

TEST_F(SourceReading, APipeIsReadByItsName) {
  Write("in", "two\n");
  const int file = open(At("in").c_str(), O_RDONLY | O_CLOEXEC);
  SourceReader reader(options_, documents_, skips_);
  ASSERT_TRUE(reader.ReadPipe(file, "app.log", "one\n").ok());
  close(file);
  EXPECT_THAT(documents_.documents(), ElementsAre(Pair("app.log#L1-L2", "one\ntwo\n")));
  EXPECT_EQ(reader.text_bytes(), 8u);
}

}  // namespace
}  // namespace corpusd::sources
