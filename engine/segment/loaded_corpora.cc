#include "engine/segment/loaded_corpora.h"

#include <algorithm>
#include <string>

namespace corpusd {
namespace {

constexpr std::string_view kIndexKind = "retrieval_index";
// Blocks that are read at a time when an index is made from the store.
constexpr uint64_t kReadBlocks = 64;
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
                           BlockStore& store,
                           std::vector<std::shared_ptr<const LoadedCorpus>> donors)
    : corpus_(corpus),
      layout_(layout),
      tokenizer_(tokenizer),
      store_(store),
      donors_(std::move(donors)),
      index_(std::make_unique<CorpusIndex>(index_layout)) {}

Status IndexBuilder::Add(std::span<const std::byte> bytes) {
  const uint64_t block = index_->blocks();
  const std::string text = TextAround(block);
  if (bytes.empty()) {
    ASSIGN_OR_RETURN(const bool given, AddFromDonor(block, text));
    return given ? OkStatus() : AddRead(block, text);
  }
  return index_->AddBlock(
      corpus_.digests[block],
      {&layout_.blocks, layout_.calibration, bytes.data(), corpus_.block_tokens[block]}, text);
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

Result<bool> IndexBuilder::AddFromDonor(uint64_t block, std::string_view text) {
  for (const auto& donor : donors_) {
    if (donor == nullptr || donor->index == nullptr) continue;
    ASSIGN_OR_RETURN(const bool given,
                     index_->AdoptBlock(corpus_.digests[block], *donor->index, text));
    if (given) return true;
  }
  return false;
}

Status IndexBuilder::AddRead(uint64_t block, std::string_view text) {
  if (block < first_ahead_ || block >= first_ahead_ + ahead_.size()) {
    ahead_.clear();
    FetchStats stats;
    const uint64_t count = std::min(kReadBlocks, corpus_.digests.size() - block);
    // What lies behind the next block may not be there yet.
    ASSIGN_OR_RETURN(ahead_,
                     store_.Fetch(std::span(corpus_.digests).subspan(block, count), &stats));
    first_ahead_ = block;
  }
  const BlockRef& ref = ahead_[block - first_ahead_];
  if (!ref.valid()) {
    ahead_.clear();
    return NotFoundError("block " + std::to_string(block) + " of corpus '" + corpus_.record.name +
                         "' is damaged or missing: corpusctl verify --repair " +
                         corpus_.record.name);
  }
  return index_->AddBlock(corpus_.digests[block],
                          {&layout_.blocks, layout_.calibration, ref.bytes().data(), ref.tokens()},
                          text);
}

LoadedCorpora::LoadedCorpora(BlockStore& store, const Tokenizer& tokenizer,
                             const IndexLayout& index_layout)
    : store_(store), tokenizer_(tokenizer), index_layout_(index_layout) {}

std::shared_ptr<const LoadedCorpus> LoadedCorpora::FindInMemory(const CorpusRecord& record) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto entry = loaded_.begin(); entry != loaded_.end(); ++entry) {
    if ((*entry)->record.id != record.id) continue;
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

Result<std::shared_ptr<const LoadedCorpus>> LoadedCorpora::Read(const CorpusRecord& record) {
  ASSIGN_OR_RETURN(const auto bytes, store_.Sidecar(record.id, kIndexKind));
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
  const std::lock_guard<std::mutex> one(making_);
  if (auto corpus = Find(record); corpus != nullptr) return corpus;
  ASSIGN_OR_RETURN(auto tokens, store_.CorpusTokens(record.name));
  auto corpus = std::make_shared<LoadedCorpus>(record, std::move(tokens));
  IndexBuilder builder(*corpus, layout, tokenizer_, index_layout_, store_, {});
  while (builder.blocks() < corpus->digests.size()) RETURN_IF_ERROR(builder.Add({}));
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
