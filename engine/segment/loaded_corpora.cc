#include "engine/segment/loaded_corpora.h"

#include <algorithm>
#include <string>

namespace corpusd {
namespace {

constexpr std::string_view kIndexKind = "retrieval_index";
// Blocks that are read, and made an index of, at a time.
constexpr uint64_t kReadBlocks = 64;
// Of an index, between two looks at whether it is still wanted.
constexpr uint64_t kReadBytes = uint64_t{32} << 20;
// Corpora kept; and what they may take together, but for the one that is in use: ten of a million
// tokens.
constexpr size_t kLoadedMax = 16;
constexpr uint64_t kLoadedBytesMax = uint64_t{1} << 30;

}  // namespace

LoadedCorpus::LoadedCorpus(const CorpusRecord& corpus, std::vector<TokenId> ids)
    : record(corpus),
      tokens(std::move(ids)),
      chain(record, kBlockTokens),
      digests(chain.Digests(record.root, tokens)) {
  block_tokens.reserve(chain.blocks());
  for (const CorpusSegment& segment : chain.segments()) {
    for (uint64_t done = 0; done < segment.tokens; done += kBlockTokens) {
      block_tokens.push_back(
          static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, segment.tokens - done)));
    }
  }
}

uint64_t LoadedCorpus::bytes() const {
  return tokens.size() * sizeof(TokenId) + digests.size() * sizeof(Digest) +
         (index == nullptr ? 0 : index->bytes());
}

IndexBuilder::IndexBuilder(const LoadedCorpus& corpus, const KvLayout& layout,
                           const Tokenizer& tokenizer, const IndexLayout& index_layout,
                           const IndexScanner& threads, BlockStore& store,
                           std::vector<std::shared_ptr<const LoadedCorpus>> donors)
    : corpus_(corpus),
      layout_(layout),
      tokenizer_(tokenizer),
      index_layout_(index_layout),
      threads_(threads),
      store_(store),
      donors_(std::move(donors)),
      index_(std::make_unique<CorpusIndex>(index_layout)) {}

Status IndexBuilder::Add(std::span<const std::span<const std::byte>> payloads) {
  while (!payloads.empty()) {
    const size_t count = std::min<size_t>(kReadBlocks, payloads.size());
    RETURN_IF_ERROR(AddSome(payloads.first(count)));
    payloads = payloads.subspan(count);
  }
  return OkStatus();
}

Status IndexBuilder::AddStored(uint64_t end) {
  const std::vector<std::span<const std::byte>> unread(kReadBlocks);
  while (blocks() < end) {
    RETURN_IF_ERROR(AddSome(std::span(unread).first(std::min(kReadBlocks, end - blocks()))));
  }
  return OkStatus();
}

Status IndexBuilder::AddSome(std::span<const std::span<const std::byte>> payloads) {
  const uint64_t first = blocks();
  std::vector<std::span<const std::byte>> bytes(payloads.begin(), payloads.end());
  std::vector<const CorpusIndex*> donors(bytes.size());
  std::vector<size_t> read;
  std::vector<Digest> digests;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (!bytes[i].empty()) continue;
    donors[i] = DonorOf(first + i);
    if (donors[i] != nullptr) continue;
    read.push_back(i);
    digests.push_back(corpus_.digests[first + i]);
  }
  FetchStats stats;
  std::vector<BlockRef> refs;
  if (!read.empty()) {
    ASSIGN_OR_RETURN(refs, store_.Fetch(digests, &stats));
  }
  for (size_t i = 0; i < refs.size(); ++i) {
    if (!refs[i].valid()) {
      return NotFoundError(
          "block " + std::to_string(first + read[i]) + " of corpus '" + corpus_.record.name +
          "' is damaged or missing: corpusctl verify --repair " + corpus_.record.name);
    }
    bytes[read[i]] = refs[i].bytes();
  }
  std::vector<CorpusIndex::BlockPart> parts(bytes.size());
  threads_.ForRanges(static_cast<uint32_t>(bytes.size()), [&](uint32_t i, unsigned) {
    const uint64_t block = first + i;
    const std::string text = TextAround(block);
    parts[i] = donors[i] != nullptr
                   ? donors[i]->PartOf(corpus_.digests[block], text)
                   : CorpusIndex::MakePart(index_layout_,
                                           {&layout_.blocks, layout_.calibration, bytes[i].data(),
                                            corpus_.block_tokens[block]},
                                           text);
  });
  for (size_t i = 0; i < parts.size(); ++i) {
    RETURN_IF_ERROR(index_->Add(corpus_.digests[first + i], parts[i]));
  }
  return OkStatus();
}

std::string IndexBuilder::TextAround(uint64_t block) const {
  const BlockSpan span = corpus_.chain.block(block);
  const CorpusSegment& segment = corpus_.chain.SegmentOfBlock(block);
  uint64_t first = 0, end = corpus_.chain.segments().front().tokens;
  if (segment.first_block != 0) {
    const CorpusSource& source = corpus_.record.sources[segment.source];
    first = source.first_token;
    end = source.first_token + source.tokens;
  }
  const uint64_t margin = RetrievalRule().lexical_margin_tokens;
  first = std::max(first, span.first_token - std::min(span.first_token, margin));
  end = std::min(end, span.first_token + span.tokens + margin);
  return tokenizer_.Decode(std::span(corpus_.tokens).subspan(first, end - first));
}

const CorpusIndex* IndexBuilder::DonorOf(uint64_t block) const {
  for (const auto& donor : donors_) {
    if (donor == nullptr || donor->index == nullptr) continue;
    if (donor->index->Has(corpus_.digests[block])) return donor->index.get();
  }
  return nullptr;
}

LoadedCorpora::LoadedCorpora(BlockStore& store, const Tokenizer& tokenizer,
                             const IndexLayout& index_layout, const IndexScanner& threads)
    : store_(store), tokenizer_(tokenizer), index_layout_(index_layout), threads_(threads) {}

class LoadedCorpora::Claim {
 public:
  // Waits until nobody else has it.
  Claim(LoadedCorpora& corpora, uint64_t id) : corpora_(corpora), id_(id) {
    std::unique_lock<std::mutex> lock(corpora_.mutex_);
    corpora_.claim_ended_.wait(lock, [&] { return corpora_.claimed_.insert(id_).second; });
  }
  ~Claim() {
    {
      const std::lock_guard<std::mutex> lock(corpora_.mutex_);
      corpora_.claimed_.erase(id_);
    }
    corpora_.claim_ended_.notify_all();
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  LoadedCorpora& corpora_;
  const uint64_t id_;
};

std::shared_ptr<const LoadedCorpus> LoadedCorpora::FindInMemory(const CorpusRecord& record) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return FindLocked(record.id);
}

std::shared_ptr<const LoadedCorpus> LoadedCorpora::FindLocked(uint64_t id) {
  for (auto entry = loaded_.begin(); entry != loaded_.end(); ++entry) {
    if ((*entry)->record.id != id) continue;
    loaded_.splice(loaded_.begin(), loaded_, entry);
    return loaded_.front();
  }
  return nullptr;
}

void LoadedCorpora::Remember(std::shared_ptr<const LoadedCorpus> corpus) {
  const std::lock_guard<std::mutex> lock(mutex_);
  loaded_.remove_if([&](const auto& other) { return other->record.id == corpus->record.id; });
  loaded_.push_front(std::move(corpus));
  uint64_t bytes = 0;
  size_t kept = 0;
  for (auto entry = loaded_.begin(); entry != loaded_.end(); ++entry, ++kept) {
    bytes += (*entry)->bytes();
    if (kept == 0 || (kept < kLoadedMax && bytes <= kLoadedBytesMax)) continue;
    loaded_.erase(entry, loaded_.end());
    return;
  }
}

bool LoadedCorpora::HasRoomFor(uint64_t bytes) const {
  for (const auto& corpus : loaded_) bytes += corpus->bytes();
  return loaded_.empty() || (loaded_.size() < kLoadedMax && bytes <= kLoadedBytesMax);
}

bool LoadedCorpora::LoadAhead(const CorpusRecord& record, const std::stop_token& stop) {
  const auto sidecar = store_.OpenSidecar(record.id, kIndexKind);
  if (!sidecar.ok()) return false;
  const Claim claim(*this, record.id);
  const uint64_t bytes =
      (*sidecar)->bytes() + record.tokens * sizeof(TokenId) + record.chain.size() * sizeof(Digest);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (FindLocked(record.id) != nullptr || !HasRoomFor(bytes)) return false;
  }
  auto corpus = Read(record, stop);
  if (!corpus.ok()) return false;  // whoever asks for it learns why
  const std::lock_guard<std::mutex> lock(mutex_);
  if (FindLocked(record.id) != nullptr || !HasRoomFor((*corpus)->bytes())) return false;
  loaded_.push_back(*std::move(corpus));  // behind those that were asked for meanwhile
  return true;
}

Result<std::shared_ptr<const LoadedCorpus>> LoadedCorpora::Read(const CorpusRecord& record,
                                                                const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const auto sidecar, store_.OpenSidecar(record.id, kIndexKind));
  std::vector<std::byte> bytes(sidecar->bytes());
  for (uint64_t at = 0; at < bytes.size(); at += kReadBytes) {
    if (stop.stop_requested()) return CancelledError("the index was not read");
    RETURN_IF_ERROR(sidecar->Read(
        at, std::span(bytes).subspan(at, std::min<uint64_t>(kReadBytes, bytes.size() - at))));
  }
  ASSIGN_OR_RETURN(auto index, CorpusIndex::Parse(index_layout_, bytes));
  ASSIGN_OR_RETURN(auto tokens, store_.CorpusTokens(record.name));
  auto corpus = std::make_shared<LoadedCorpus>(record, std::move(tokens));
  bool same = index->blocks() == corpus->digests.size();
  for (uint64_t i = 0; same && i < index->blocks(); ++i) {
    same = index->digest(i) == corpus->digests[i];
  }
  if (!same) return CorruptionError("the index of '" + record.name + "' is of other blocks");
  corpus->index = std::move(index);
  return std::shared_ptr<const LoadedCorpus>(std::move(corpus));
}

std::shared_ptr<const LoadedCorpus> LoadedCorpora::Find(const CorpusRecord& record) {
  if (auto corpus = FindInMemory(record); corpus != nullptr) return corpus;
  auto read = Read(record);
  if (!read.ok()) return nullptr;  // it is made again by whoever needs it
  Remember(*read);
  return *std::move(read);
}

Result<std::shared_ptr<const LoadedCorpus>> LoadedCorpora::Get(const CorpusRecord& record,
                                                               const KvLayout& layout) {
  if (auto corpus = FindInMemory(record); corpus != nullptr) return corpus;
  const Claim claim(*this, record.id);
  if (auto corpus = Find(record); corpus != nullptr) return corpus;
  const std::lock_guard<std::mutex> one(making_);
  ASSIGN_OR_RETURN(auto tokens, store_.CorpusTokens(record.name));
  auto corpus = std::make_shared<LoadedCorpus>(record, std::move(tokens));
  IndexBuilder builder(*corpus, layout, tokenizer_, index_layout_, threads_, store_, {});
  RETURN_IF_ERROR(builder.AddStored(corpus->digests.size()));
  corpus->index = builder.Take();
  Keep(corpus);
  return std::shared_ptr<const LoadedCorpus>(corpus);
}

void LoadedCorpora::Keep(std::shared_ptr<const LoadedCorpus> corpus) {
  WriteIndex(*corpus);
  Remember(std::move(corpus));
}

void LoadedCorpora::WriteIndex(const LoadedCorpus& corpus) {
  const auto form = corpus.index->Serialize();
  // Without it the index is made again from the blocks.
  (void)store_.PutSidecarParts(corpus.record.id, kIndexKind, form->parts);
}

}  // namespace corpusd
