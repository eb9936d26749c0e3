// The byte form of a CorpusIndex: written and parsed here.
#include <cstring>

#include "engine/retrieval/corpus_index.h"
#include "store/base/crc32c.h"

namespace corpusd {
namespace {

constexpr std::string_view kMagic = "CKVIDX1\n";
constexpr uint64_t kHeaderBytes = kMagic.size() + sizeof(Digest) + 4 + 4 + 8;
constexpr uint64_t kRecordBytes = sizeof(Digest) + 3 * 4;  // before the postings

template <typename T>
void Put(std::string* out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out->append(bytes, sizeof value);
}
void PutDigest(std::string* out, const Digest& digest) {
  out->append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
}
std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}
void PutChecksum(std::string* out) { Put(out, Crc32c(BytesOf(*out))); }

// Takes bytes from the front of a span.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t left() const { return bytes_.size() - at_; }
  uint64_t at() const { return at_; }
  template <typename T>
  T Take() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::span<const std::byte> TakeBytes(uint64_t count) {
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  // Whether the checksum at the front is that of all since `begin`.
  bool TakeChecksum(uint64_t begin) {
    const std::span<const std::byte> covered = bytes_.subspan(begin, at_ - begin);
    return Take<uint32_t>() == Crc32c(covered);
  }

 private:
  const std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
};

std::string HeaderOf(const IndexLayout& layout, uint64_t blocks) {
  std::string header(kMagic);
  PutDigest(&header, layout.heads().digest());
  Put(&header, static_cast<uint32_t>(layout.tile_bytes()));
  Put(&header, static_cast<uint32_t>(layout.heads().sources().size()));
  Put(&header, blocks);
  PutChecksum(&header);
  return header;
}

Status Damaged(const std::string& what) { return CorruptionError("a corpus's index: " + what); }

}  // namespace

std::unique_ptr<const CorpusIndex::ByteForm> CorpusIndex::Serialize() const {
  auto form = std::make_unique<ByteForm>();
  form->own.reserve(kHeaderBytes + 4 + blocks() * (kRecordBytes + 4));  // parts point into it
  const auto add_own = [&](std::string_view bytes) {
    const auto* const at = reinterpret_cast<const std::byte*>(form->own.data() + form->own.size());
    form->own += bytes;
    form->parts.push_back({at, bytes.size()});
  };
  add_own(HeaderOf(layout_, blocks()));
  std::string record;
  for (uint64_t block = 0; block < blocks(); ++block) {
    record.clear();
    const std::span<const std::byte> postings = std::as_bytes(words_.postings(block));
    const std::span<const std::byte> tiles = keys_.block_bytes(block);
    PutDigest(&record, digests_[block]);
    Put(&record, tokens(block));
    Put(&record, words_.length(block));
    Put(&record, static_cast<uint32_t>(words_.postings(block).size()));
    add_own(record);
    for (const auto& part : {postings, tiles}) {
      record.append(reinterpret_cast<const char*>(part.data()), part.size());
      form->parts.push_back(part);
    }
    PutChecksum(&record);
    add_own(std::string_view(record).substr(record.size() - 4));
  }
  return form;
}

Result<std::unique_ptr<CorpusIndex>> CorpusIndex::Parse(const IndexLayout& layout,
                                                        std::span<const std::byte> bytes) {
  Reader reader(bytes);
  if (reader.left() < kHeaderBytes + 4) return Damaged("it ends within its header");
  if (std::memcmp(reader.TakeBytes(kMagic.size()).data(), kMagic.data(), kMagic.size()) != 0) {
    return Damaged("it does not begin as one");
  }
  const auto heads = reader.Take<Digest>();
  const auto tile_bytes = reader.Take<uint32_t>();
  const auto sources = reader.Take<uint32_t>();
  const auto blocks = reader.Take<uint64_t>();
  if (!reader.TakeChecksum(0)) return Damaged("the checksum of its header does not fit");
  if (heads != layout.heads().digest() || tile_bytes != layout.tile_bytes() ||
      sources != layout.heads().sources().size()) {
    return FailedPreconditionError("a corpus's index holds the keys of other retrieval heads");
  }
  auto index = std::make_unique<CorpusIndex>(layout);
  std::vector<uint32_t> postings;
  for (uint64_t block = 0; block < blocks; ++block) {
    const std::string name = "block " + std::to_string(block);
    const uint64_t begin = reader.at();
    if (reader.left() < kRecordBytes) return Damaged("it ends before " + name);
    const auto digest = reader.Take<Digest>();
    const auto tokens = reader.Take<uint32_t>();
    const auto length = reader.Take<uint32_t>();
    const auto count = reader.Take<uint32_t>();
    const uint64_t postings_bytes = uint64_t{count} * sizeof(uint32_t);
    if (reader.left() < postings_bytes + layout.block_bytes() + 4) {
      return Damaged("it ends within " + name);
    }
    const auto words = reader.TakeBytes(postings_bytes);
    const auto tiles = reader.TakeBytes(layout.block_bytes());
    postings.resize(count);
    if (count > 0) std::memcpy(postings.data(), words.data(), words.size());
    if (!reader.TakeChecksum(begin)) return Damaged("the checksum of " + name + " does not fit");
    if (tokens == 0 || tokens > kBlockTokens || !LexicalIndex::AreSane(postings)) {
      return Damaged(name + " holds what no block does");
    }
    RETURN_IF_ERROR(index->keys_.AppendCoded(tiles, tokens));
    index->words_.Append(postings, length);
    index->Remember(digest);
  }
  if (reader.left() != 0) return Damaged("it goes on behind its last block");
  return index;
}

}  // namespace corpusd
