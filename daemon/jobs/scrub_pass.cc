#include "daemon/jobs/scrub_pass.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

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

size_t SharedWithEarlier(const std::vector<CorpusRecord>& by_id, size_t index) {
  const std::vector<Digest>& chain = by_id[index].chain;
  size_t shared = 0;
  for (size_t i = 0; i < index; ++i) {
    const std::vector<Digest>& other = by_id[i].chain;
    const auto differs = std::mismatch(chain.begin(), chain.end(), other.begin(), other.end());
    shared = std::max(shared, static_cast<size_t>(differs.first - chain.begin()));
  }
  return shared;
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
  uint64_t left = 0;
  for (size_t i = 0; i < corpora.size(); ++i) {
    if (corpora[i].id < state->corpus_id) continue;
    const size_t first = std::max<size_t>(SharedWithEarlier(corpora, i),
                                          corpora[i].id == state->corpus_id ? state->block : 0);
    left += corpora[i].chain.size() - std::min(first, corpora[i].chain.size());
  }
  state->total_blocks = state->blocks + left;
  for (size_t i = 0; i < corpora.size(); ++i) {
    if (corpora[i].id < state->corpus_id) continue;
    if (corpora[i].id > state->corpus_id) {
      state->corpus_id = corpora[i].id;
      state->block = 0;
      state->repair_due = false;
    }
    const size_t first = std::max<size_t>(SharedWithEarlier(corpora, i), state->block);
    RETURN_IF_ERROR(ScrubCorpus(corpora[i], first, on_progress));
    state->corpus_id = corpora[i].id + 1;
    state->block = 0;
    state->repair_due = false;
  }
  CheckCatalogue();
  state->total_blocks = state->blocks;  // corpora may have gone meanwhile
  return OkStatus();
}

Status ScrubPass::ScrubCorpus(const CorpusRecord& record, size_t first,
                              const std::function<void()>& done) {
  if (!store_.GetCorpus(record.name).ok()) return OkStatus();  // removed since
  CheckMetadata(record);
  for (size_t i = first; i < record.chain.size(); ++i) {
    if (yield_) yield_(stop_);
    if (!Pace(record.block_bytes)) return CancelledError("the scrub was stopped");
    ASSIGN_OR_RETURN(const bool same, ScrubBlock(record, i));
    if (!same) return OkStatus();
    ++state_->blocks;
    state_->block = i + 1;
    done();
  }
  if (state_->repair_due) Repair(record);
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
  const auto shape = engine_.ShapeOf(record.kv_format);
  if (!shape.ok()) return;  // of a format that this daemon does not know
  std::vector<Digest> chain = BuildChain(record.root, *tokens, shape->block_tokens);
  chain.resize(std::min(chain.size(), record.chain.size()));
  if (chain != record.chain) wrong("its chain does not follow from its token ids");
  const auto stored = store_.LongestPrefix(record.chain, *tokens);
  if (stored.status().code() == StatusCode::kCorruption) wrong(stored.status().message());
}

Result<bool> ScrubPass::ScrubBlock(const CorpusRecord& record, size_t index) {
  uint32_t sections = 0;
  const Digest& digest = record.chain[index];
  const Status read = store_.ReadBlock(digest, &payload_, &sections);
  if (read.ok()) {
    state_->bytes += payload_.size();
    return true;
  }
  if (read.code() != StatusCode::kCorruption && read.code() != StatusCode::kNotFound) return read;
  const auto now = store_.GetCorpus(record.name);
  if (!now.ok() || index >= now->chain.size() || now->chain[index] != digest) return false;
  ++(read.code() == StatusCode::kCorruption ? state_->damaged : state_->missing);
  state_->Note(BlockText(record, index) + ": " + read.message());
  state_->repair_due = true;
  return true;
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
