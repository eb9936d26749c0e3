#include "daemon/jobs/scrub_pass.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "store/corpus_chain.h"

namespace corpusd {
namespace {

using std::chrono::steady_clock;

// A pause (a question, a sleeping machine) is not made up for by more than this at full speed.
constexpr std::chrono::milliseconds kCatchUp{200};
constexpr std::string_view kErrorLine = "error: ";

std::string BlockText(const CorpusRecord& record, size_t index) {
  return "corpus '" + record.name + "' block " + std::to_string(index);
}

}  // namespace

std::vector<std::vector<size_t>> OwnBlocks(const std::vector<CorpusRecord>& by_id) {
  std::vector<std::vector<size_t>> own(by_id.size());
  std::unordered_set<Digest, DigestHash> met;  // of segmented corpora
  for (size_t c = 0; c < by_id.size(); ++c) {
    const CorpusRecord& record = by_id[c];
    const bool segmented = record.segments.window_tokens > 0;
    size_t first = 0;
    for (size_t earlier = 0; !segmented && earlier < c; ++earlier) {
      first = std::max(first, record.chain.CommonPrefix(by_id[earlier].chain));
    }
    for (size_t i = first; i < record.chain.size(); ++i) {
      if (!segmented || met.insert(record.chain[i]).second) own[c].push_back(i);
    }
  }
  return own;
}

ScrubPass::ScrubPass(BlockStore& store, Engine& engine,
                     std::function<void(const std::stop_token&)> yield)
    : store_(store), engine_(engine), yield_(std::move(yield)) {}

Status ScrubPass::Run(ScrubState* state, const std::function<void()>& on_progress,
                      const std::stop_token& stop) {
  state_ = state;
  stop_ = stop;
  next_read_ = steady_clock::now();
  std::vector<CorpusRecord> corpora = store_.ListCorpora();
  std::sort(corpora.begin(), corpora.end(),
            [](const CorpusRecord& a, const CorpusRecord& b) { return a.id < b.id; });
  const auto own = OwnBlocks(corpora);
  // What is left of a corpus: a pass that was stopped goes on within it.
  const auto left_of = [&](size_t c) {
    const size_t done = corpora[c].id == state->corpus_id ? state->block : 0;
    const auto first = std::lower_bound(own[c].begin(), own[c].end(), done);
    return std::span(own[c]).subspan(static_cast<size_t>(first - own[c].begin()));
  };
  uint64_t left = 0;
  for (size_t i = 0; i < corpora.size(); ++i) {
    if (corpora[i].id < state->corpus_id) continue;
    left += left_of(i).size() + HeldParts(corpora[i]).size();
  }
  state->total_blocks = state->blocks + left;
  for (size_t i = 0; i < corpora.size(); ++i) {
    if (corpora[i].id < state->corpus_id) continue;
    if (corpora[i].id > state->corpus_id) {
      state->corpus_id = corpora[i].id;
      state->block = 0;
      state->repair_due = false;
    }
    RETURN_IF_ERROR(ScrubCorpus(corpora[i], left_of(i), on_progress));
    state->corpus_id = corpora[i].id + 1;
    state->block = 0;
    state->repair_due = false;
  }
  CheckCatalogue();
  state->total_blocks = state->blocks;  // corpora may have gone meanwhile
  return OkStatus();
}

Status ScrubPass::ScrubCorpus(const CorpusRecord& record, std::span<const size_t> blocks,
                              const std::function<void()>& done) {
  if (!store_.GetCorpus(record.name).ok()) return OkStatus();  // removed since
  CheckMetadata(record);
  for (const size_t i : blocks) {
    if (yield_) yield_(stop_);
    if (!Pace(record.block_bytes)) return CancelledError("the scrub was stopped");
    ASSIGN_OR_RETURN(const Reading reading, ReadOne(record.chain[i], BlockText(record, i), [&] {
                       const auto now = store_.GetCorpus(record.name);
                       return now.ok() && i < now->chain.size() && now->chain[i] == record.chain[i];
                     }));
    if (reading == Reading::kChanged) return OkStatus();
    ++state_->blocks;
    state_->block = i + 1;
    done();
  }
  RETURN_IF_ERROR(ScrubParts(record, done));
  if (state_->repair_due) Repair(record);
  return OkStatus();
}

// All of them each time: they are few, and a pass that was stopped goes on behind the chain.
Status ScrubPass::ScrubParts(const CorpusRecord& record, const std::function<void()>& done) {
  for (const HeldPart& held : HeldParts(record)) {
    const CorpusPart& part = record.parts[held.part];
    if (yield_) yield_(stop_);
    if (!Pace(part.block_bytes)) return CancelledError("the scrub was stopped");
    const std::string what = BlockText(record, held.block) + ", part " + part.kind;
    ASSIGN_OR_RETURN(const Reading reading, ReadOne(held.digest, what, [&] {
                       const auto now = store_.GetCorpus(record.name);
                       return now.ok() && now->id == record.id && now->parts == record.parts;
                     }));
    if (reading == Reading::kChanged) return OkStatus();
    ++state_->blocks;
    done();
  }
  return OkStatus();
}

void ScrubPass::CheckMetadata(const CorpusRecord& record) {
  const auto wrong = [&](const std::string& what) {
    ++state_->contradictions;
    state_->Note("corpus '" + record.name + "': " + what);
  };
  if (!record.identity.empty() && ChainRoot(record.identity) != record.root) {
    wrong("its root does not follow from its identity");
  }
  const auto tokens = store_.CorpusTokens(record.name);
  if (!tokens.ok()) {
    if (tokens.status().code() == StatusCode::kCorruption) wrong(tokens.status().message());
    return;
  }
  const auto shape = engine_.ShapeOf(record.kv_format, record.segments);
  if (!shape.ok()) return;  // of a format that this daemon does not know
  if (const Status segmented = CheckSegmented(record, shape->block_tokens); !segmented.ok()) {
    return wrong(segmented.message());
  }
  const CorpusChain segments(record, shape->block_tokens);
  std::vector<Digest> chain = segments.Digests(record.root, *tokens);
  chain.resize(std::min(chain.size(), record.chain.size()));
  const bool follows = chain == record.chain;
  if (!follows) wrong("its chain does not follow from its token ids");
  const bool exact = record.segments.window_tokens == 0;
  if (!exact && !follows) return;
  const Status stored = exact ? store_.LongestPrefix(record.chain, *tokens).status()
                              : store_.StoredBlocks(segments, record.chain, *tokens).status();
  if (stored.code() == StatusCode::kCorruption) wrong(stored.message());
}

Result<ScrubPass::Reading> ScrubPass::ReadOne(const Digest& digest, const std::string& what,
                                              const std::function<bool()>& still_named) {
  uint32_t sections = 0;
  const Status read = store_.ReadBlock(digest, &payload_, &sections);
  if (read.ok()) {
    state_->bytes += payload_.size();
    return Reading::kDone;
  }
  if (read.code() == StatusCode::kUnavailable) {  // with a rank that is away
    ++state_->missing;
    state_->Note(what + ": " + read.message());
    return Reading::kDone;
  }
  if (read.code() != StatusCode::kCorruption && read.code() != StatusCode::kNotFound) return read;
  if (!still_named()) return Reading::kChanged;
  ++(read.code() == StatusCode::kCorruption ? state_->damaged : state_->missing);
  state_->Note(what + ": " + read.message());
  state_->repair_due = true;
  return Reading::kDone;
}

void ScrubPass::Repair(const CorpusRecord& record) {
  const auto repaired = engine_.Repair(record.name);
  if (repaired.ok()) {
    state_->repaired += *repaired;
  } else {
    state_->Note("corpus '" + record.name +
                 "' cannot be computed again: " + repaired.status().message());
  }
}

void ScrubPass::CheckCatalogue() {
  for (const std::string& line : store_.Diagnose()) {
    if (!line.starts_with(kErrorLine)) continue;
    ++state_->contradictions;
    state_->Note(line.substr(kErrorLine.size()));
  }
}

bool ScrubPass::Pace(uint64_t bytes) {
  if (stop_.stop_requested()) return false;
  if (state_->bytes_per_s == 0) return true;
  const auto now = steady_clock::now();
  next_read_ = std::max(next_read_, now - kCatchUp);
  if (next_read_ > now) {
    std::mutex mutex;
    std::condition_variable_any stopped;
    std::unique_lock lock(mutex);
    stopped.wait_until(lock, stop_, next_read_, [] { return false; });
  }
  const double seconds = static_cast<double>(bytes) / static_cast<double>(state_->bytes_per_s);
  next_read_ +=
      std::chrono::duration_cast<steady_clock::duration>(std::chrono::duration<double>(seconds));
  return !stop_.stop_requested();
}

}  // namespace corpusd
