#include "store/miss_explain.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "store/block_store.h"
#include "store/corpus_chain.h"
#include "store/miss_explain_tenant.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

// A text of which this many blocks miss for as many reasons in turn is summed up at the end.
constexpr size_t kRunsMax = 256;

MissReason ReasonOf(const EvictionNote& note) {
  switch (note.reason) {
    case EvictionReason::kRoom:
    case EvictionReason::kAsked:
      return MissReason::kEvicted;
    case EvictionReason::kExpired:
      return MissReason::kExpired;
    case EvictionReason::kRemoved:
      return MissReason::kRemoved;
  }
  return MissReason::kEvicted;
}

MissRun RunOf(const EvictionNote& note) {
  std::string detail =
      "with corpus '" + note.corpus + "' (" + std::string(EvictionReasonText(note.reason)) + ")";
  if (!note.detail.empty()) detail += ": " + note.detail;
  return {0, 0, ReasonOf(note), note.when_ms, detail};
}

std::string ValueOf(std::span<const IdentityField> fields, const std::string& name) {
  const auto field =
      std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
  return field == fields.end() ? "" : field->value;
}

std::vector<FieldDifference> DifferencesOf(std::span<const IdentityField> stored,
                                           std::span<const IdentityField> asked) {
  std::vector<FieldDifference> differences;
  for (const IdentityField& field : asked) {
    const std::string other = ValueOf(stored, field.name);
    if (other != field.value) differences.push_back({field.name, other, field.value});
  }
  for (const IdentityField& field : stored) {
    const bool known = std::any_of(asked.begin(), asked.end(),
                                   [&](const auto& f) { return f.name == field.name; });
    if (!known) differences.push_back({field.name, field.value, ""});
  }
  return differences;
}

// To whom the report goes; none: to whoever may see all.
using Asker = std::optional<std::string_view>;

bool MayName(const Asker& asker, std::string_view corpus) {
  return !asker || TenantOf(corpus) == *asker;
}

// The corpus that begins with the block, or the one that its root was last used for.
std::string CorpusOf(const std::vector<CorpusRecord>& corpora, const Digest& first,
                     const RootRecord& root) {
  for (const CorpusRecord& record : corpora) {
    if (!record.chain.empty() && record.chain.front() == first) return record.name;
  }
  return root.corpus;
}

// Blocks that are absent before one that is there and builds upon them: in an exact corpus any
// later one, in a segmented one those of the segment; all build upon the preamble.
std::vector<bool> Holes(std::span<const BlockPresence> presence, const CorpusChain* segments) {
  std::vector<bool> holes(presence.size());
  bool later = false;  // in the whole corpus
  bool in_segment = false;
  for (size_t i = presence.size(); i-- > 0;) {
    const CorpusSegment* const segment =
        segments == nullptr ? nullptr : &segments->SegmentOfBlock(i);
    const bool leads = segment == nullptr || segment->first_block == 0;
    const bool stored = presence[i] == BlockPresence::kStored;
    holes[i] = !stored && (leads ? later : in_segment);
    later = later || stored;
    in_segment = (in_segment || stored) && (segment == nullptr || segment->first_block != i);
  }
  return holes;
}

// The same tokens under another root that the store knows.
Status FindUnderOtherRoot(const BlockStore& store, const MissQuestion& question, const Asker& asker,
                          const std::vector<CorpusRecord>& corpora, MissReport* report) {
  const Digest own = ChainRoot(question.identity);
  const size_t first_tokens =
      question.chain == nullptr ? question.block_tokens : question.chain->block(0).tokens;
  const auto ids = question.tokens.first(std::min<size_t>(question.tokens.size(), first_tokens));
  for (const RootRecord& root : store.Roots()) {
    if (root.root == own || !MayName(asker, root.corpus)) continue;
    const Digest first = ExtendChain(root.root, ids);
    ASSIGN_OR_RETURN(const auto presence, store.Presence({&first, 1}));
    if (presence.front() == BlockPresence::kAbsent) continue;
    report->other_corpus = CorpusOf(corpora, first, root);
    report->differences = DifferencesOf(root.identity, question.identity);
    return OkStatus();
  }
  return OkStatus();
}

// The same text in a corpus whose token ids are others: another tokenizer, another preamble, other
// sources before it.
void FindByText(const MissQuestion& question, const std::vector<CorpusRecord>& corpora,
                MissReport* report) {
  if (question.text_sha256.empty()) return;
  for (const CorpusRecord& record : corpora) {
    const auto source =
        std::find_if(record.sources.begin(), record.sources.end(),
                     [&](const CorpusSource& s) { return s.sha256 == question.text_sha256; });
    if (source == record.sources.end() || record.chain.empty()) continue;
    report->other_corpus = record.name;
    report->differences = DifferencesOf(record.identity, question.identity);
    if (!report->differences.empty()) return;
    const bool leads = source == record.sources.begin();
    report->differences.push_back(
        {leads ? "preamble" : "place",
         leads ? "another one" : "from token " + std::to_string(source->first_token),
         leads ? "as given" : "from the start"});
    return;
  }
}

}  // namespace

std::string_view MissReasonText(MissReason reason) {
  static constexpr std::array<std::string_view, kMissReasons> kTexts = {
      "none", "identity", "hole", "evicted", "expired", "removed", "corrupt", "never_seen"};
  return kTexts[static_cast<size_t>(reason)];
}

MissCounters::Counts MissCounters::Read() const {
  Counts counts;
  for (size_t i = 0; i < kMissReasons; ++i) {
    counts.lookups[i] = lookups_[i].load(std::memory_order_relaxed);
    counts.blocks[i] = blocks_[i].load(std::memory_order_relaxed);
  }
  return counts;
}

MissReason MissReport::reason() const {
  for (const MissRun& run : runs) {
    if (run.reason != MissReason::kNone) return run.reason;
  }
  return MissReason::kNone;
}

std::vector<MissRun> ClassifyBlocks(std::span<const Digest> chain,
                                    std::span<const BlockPresence> presence,
                                    std::span<const EvictionNote> notes,
                                    const CorpusChain* segments) {
  std::vector<MissRun> runs;
  const std::vector<bool> holes = Holes(presence, segments);
  // Of two notes on a block the later one counts.
  std::vector<const EvictionNote*> left(chain.size(), nullptr);
  for (const EvictionNote& note : notes) {
    if (note.first_block >= chain.size() || chain[note.first_block] != note.first_digest) continue;
    const uint64_t end = note.first_block + std::min(note.blocks, chain.size() - note.first_block);
    for (uint64_t i = note.first_block; i < end; ++i) {
      if (left[i] == nullptr || left[i]->when_ms <= note.when_ms) left[i] = &note;
    }
  }
  for (size_t i = 0; i < chain.size(); ++i) {
    MissRun run;
    if (presence[i] == BlockPresence::kQuarantined) {
      run.reason = MissReason::kCorrupt;
      run.detail = "a checksum failed; it is computed again when it is next needed";
    } else if (presence[i] == BlockPresence::kAbsent && left[i] != nullptr) {
      run = RunOf(*left[i]);
    } else if (presence[i] == BlockPresence::kAbsent) {
      run.reason = holes[i] ? MissReason::kHole : MissReason::kNeverSeen;
    }
    const bool joins = !runs.empty() && runs.back().reason == run.reason &&
                       runs.back().when_ms == run.when_ms && runs.back().detail == run.detail;
    if (!joins && runs.size() < kRunsMax) {
      run.first_block = i;
      runs.push_back(std::move(run));
    }
    ++runs.back().blocks;
  }
  return runs;
}

namespace {

Result<MissReport> Explain(const BlockStore& store, const MissQuestion& question,
                           const Asker& asker) {
  const Digest root = ChainRoot(question.identity);
  const auto chain = question.chain == nullptr
                         ? BuildChain(root, question.tokens, question.block_tokens)
                         : question.chain->Digests(root, question.tokens);
  ASSIGN_OR_RETURN(const auto presence, store.Presence(chain));
  MissReport report;
  report.blocks = chain.size();
  report.present =
      static_cast<uint64_t>(std::count(presence.begin(), presence.end(), BlockPresence::kStored));
  report.runs = ClassifyBlocks(chain, presence, store.EvictionNotes(), question.chain);
  if (chain.empty() || report.runs.front().reason != MissReason::kNeverSeen) return report;
  // Nothing of it was ever here under this identity. Under another?
  std::vector<CorpusRecord> corpora = store.ListCorpora();
  std::erase_if(corpora, [&](const CorpusRecord& r) { return !MayName(asker, r.name); });
  RETURN_IF_ERROR(FindUnderOtherRoot(store, question, asker, corpora, &report));
  if (report.other_corpus.empty()) FindByText(question, corpora, &report);
  if (!report.other_corpus.empty()) report.runs.front().reason = MissReason::kIdentity;
  return report;
}

}  // namespace

Result<MissReport> ExplainMiss(const BlockStore& store, const MissQuestion& question) {
  return Explain(store, question, std::nullopt);
}

Result<MissReport> ExplainMissTo(std::string_view tenant, const BlockStore& store,
                                 const MissQuestion& question) {
  return Explain(store, question, tenant);
}

}  // namespace corpusd
