// What a LlamaEngine does with other ranks: computes exact corpora and answers over them together.
// Without a group, for now or always, the rest of the engine does the same alone.
#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "engine/backend/node_attention.h"
#include "engine/llama_engine.h"
#include "engine/ranks/ranked_model.h"

namespace corpusd {
namespace {

// References of one commit.
constexpr size_t kAdoptBlocks = 4096;

// A rank that is started anew, or that starts after the daemon, is there by then.
constexpr double kShelfPatienceSeconds = 15;

// A rank's memory or disk does not hold its share: rank 0 goes on alone, which takes no more than
// its own, in turn.
bool HasNoRoom(const Status& status) { return status.code() == StatusCode::kResourceExhausted; }

}  // namespace

Status LlamaEngine::OpenModel() {
  if (options_.ranks.source == nullptr) options_.ranks.source = HostDevices();
  const EngineRanks& ranks = options_.ranks;
  const size_t own = std::max<size_t>(1, ranks.devices.size());
  const size_t all = own * std::max<size_t>(1, ranks.addresses.size());
  if (ranks.tensor_ranks == 0 || all % ranks.tensor_ranks != 0) {
    return InvalidArgumentError(std::to_string(all) + " ranks cannot share the weights " +
                                std::to_string(ranks.tensor_ranks) + " by " +
                                std::to_string(ranks.tensor_ranks) +
                                ": give a number that divides them as --tensor-parallel");
  }
  const bool alone = all == ranks.tensor_ranks;  // as to texts
  unsigned threads = options_.threads;
  if (ranks.devices.size() > 1) {
    threads = RankThreads(options_.threads, ranks.devices.size());
  }
  const std::string device = ranks.devices.empty() ? options_.device : ranks.devices.front();
  ASSIGN_OR_RETURN(local_backend_, ranks.source->MakeBackend(device, {threads, options_.isa},
                                                             options_.on_device_lost));
  backend_ = local_backend_.get();
  // Devices share weights below the text, so that it need not know of them; ranks above it.
  const bool by_devices = ranks.tensor_ranks > 1 && !local_backend_->host_addressable();
  if (by_devices) RETURN_IF_ERROR(OpenTensorDevices());
  if (alone) {
    if (all > 1 && !by_devices) RETURN_IF_ERROR(OpenSharedWeights());
    ASSIGN_OR_RETURN(model_, LoadOverBackend());
    return OkStatus();
  }
  if (NodeAttentionOf(*local_backend_) == nullptr) {
    return UnimplementedError("'" + std::string(local_backend_->name()) +
                              "' has no attention over several ranks");
  }
  ranked_backend_ = std::make_unique<RankedBackend>(*backend_, *local_backend_);
  backend_ = ranked_backend_.get();
  if (ranks.tensor_ranks > 1 && !by_devices) RETURN_IF_ERROR(OpenSharedWeights());
  ASSIGN_OR_RETURN(auto model, LoadOverBackend());
  local_model_ = model.get();
  model_ = MakeRankedModel(std::move(model));
  return OkStatus();
}

Status LlamaEngine::OpenRanks() {
  if (local_model_ == nullptr || store_ == nullptr) return OkStatus();
  const EngineRanks& ranks = options_.ranks;
  std::unique_ptr<RankCrew> crew;
  if (!ranks.addresses.empty()) {
    ProcessCrewOptions options;
    options.addresses = ranks.addresses;
    options.identity = {summary_.digest, ArithmeticOf(*local_backend_)};
    options.stride = ranks.stride();
    options.device = options_.device;
    options.devices = ranks.source;
    options.timeout = ranks.timeout;
    shelves_ = std::make_unique<RankShelves>(*store_, ranks.store_id, ranks.timeout);
    options.on_shelf = [this](uint32_t rank, Socket socket) {
      const Status attached = shelves_->Attach(rank, std::move(socket));
      if (!options_.ranks.on_change) return;
      options_.ranks.on_change("the disk of rank " + std::to_string(rank) +
                               (attached.ok() ? " is there" : " is refused: ") +
                               (attached.ok() ? "" : attached.message()));
    };
    ASSIGN_OR_RETURN(crew, MakeProcessCrew(options));
  } else {
    ThreadCrewOptions options;
    options.device = ranks.devices.front();
    options.devices = ranks.source;
    options.timeout = ranks.timeout;
    options.stride = ranks.stride();
    options.tensor_devices = ranks.DevicesFrom(0);
    for (size_t rank = options.stride; rank < ranks.devices.size(); rank += options.stride) {
      RankWorkerOptions worker;
      worker.shared.first_rank = static_cast<uint32_t>(rank);
      worker.shared.timeout = ranks.timeout;
      if (tensor_devices_ != nullptr) {
        worker.tensor_devices = ranks.DevicesFrom(rank);
      } else {
        worker.shared.ranks = ranks.tensor_ranks;
      }
      worker.model_path = options_.model_path;
      worker.device = ranks.devices[rank];
      worker.isa = options_.isa;
      worker.weights = options_.weights;
      worker.threads = RankThreads(options_.threads, ranks.devices.size());
      worker.cache_dir = options_.cache_dir;
      worker.store = store_;
      worker.devices = ranks.source;
      worker.device_bytes = ranks.device_bytes;
      options.workers.push_back(std::move(worker));
    }
    ASSIGN_OR_RETURN(crew, MakeThreadCrew(options));
  }
  holder_ =
      local_backend_->host_addressable() ? HoldInHost() : HoldByStore(*local_backend_, *store_);
  const RankContext here{*local_model_, *ranked_backend_, gate_, *store_, *holder_, shelves_.get()};
  ranks_ = std::make_unique<RankGroup>(here, std::move(crew),
                                       RankGroup::Options{.on_change = ranks.on_change});
  return OkStatus();
}

Result<RankTimes> LlamaEngine::PlanRanks(uint32_t ranks, uint64_t tokens,
                                         double link_bytes_s) const {
  ASSIGN_OR_RETURN(const KvFormat format, FormatOf(""));
  RankRates rates = kMeasuredRates;
  if (link_bytes_s > 0) rates.link_bytes_s = link_bytes_s;
  return PlanPrefill(rates, WorkOf(model_->config(), format), ranks, tokens, kPlannedRankTokens);
}

std::optional<Result<GenerationReport>> LlamaEngine::AnswerOverRanks(
    const std::shared_ptr<RankLeader>& leader, const Question& question, QuestionReport* report) {
  const CorpusRecord& record = question.record;
  const RankLeader::Chain chain{std::span(record.chain), record.durable_tokens};
  auto share = leader->Open(question.layout, chain);
  const StatusCode code = share.status().code();
  if (code == StatusCode::kCorruption || code == StatusCode::kNotFound) {
    const auto tokens = store_->CorpusTokens(record.name);
    if (!tokens.ok()) return tokens.status();
    const auto leased = LeaseWhole(context(), *store_, record, question.layout, *tokens,
                                   ComputePriority::kQuestion, question.stop);
    if (!leased.ok()) return std::nullopt;  // what is left to do, one rank does
    report->recomputed_tokens = leased->recomputed_tokens;
    share = leader->Open(question.layout, chain);
  }
  if (!share.ok()) return std::nullopt;
  report->cached_tokens = record.tokens - std::min(record.tokens, report->recomputed_tokens);
  report->load_ms = SecondsSince(question.start) * 1e3;
  report->host_bytes = share->stats.host_bytes;
  report->disk_bytes = share->stats.disk_bytes;
  const auto kv = leader->Sequence(*share);
  return AnswerOver(question, *kv, report);
}

Result<FetchStats> LlamaEngine::WarmOverRanks(RankLeader& leader, const CorpusRecord& record) {
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfRecord(record));
  ASSIGN_OR_RETURN(const RankLeader::Share share,
                   leader.Open(layout, {std::span(record.chain), record.durable_tokens}));
  leader.Close(share.id);
  return share.stats;
}

EvictReport LlamaEngine::EvictFromRanks(const CorpusRecord& record, bool dry_run) {
  const auto ranks = leader();
  if (ranks == nullptr) return {};
  const std::vector<Digest> digests = AllDigests(record);
  const auto dropped = ranks->Drop(digests, dry_run);
  EvictReport report;
  if (dropped.ok()) {  // else they are lost, and their memory with them
    report.blocks = dropped->blocks;
    report.bytes = dropped->bytes;
  }
  return report;
}

Status LlamaEngine::AwaitShelves(const CorpusRecord& record, const std::stop_token& stop) {
  if (shelves_ == nullptr || record.chain.empty()) return OkStatus();
  ASSIGN_OR_RETURN(const auto locations, store_->Locations(std::span(record.chain)));
  std::set<uint32_t> ranks;
  for (const auto& location : locations) {
    if (location && ShelfOf(location->extent) != 0) ranks.insert(ShelfOf(location->extent));
  }
  const auto there = [&](uint32_t rank) { return shelves_->Epoch(rank).has_value(); };
  const auto start = std::chrono::steady_clock::now();
  while (!std::all_of(ranks.begin(), ranks.end(), there) && !stop.stop_requested() &&
         SecondsSince(start) < kShelfPatienceSeconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return stop.stop_requested() ? OkStatus() : store_->GiveUp(std::span(record.chain));
}

Status LlamaEngine::AdoptKnown(const ExactText& text, CorpusRecord* record,
                               PrefillProgress* state) {
  const size_t known = text.known_blocks == text.chain.size()
                           ? text.known_blocks
                           : text.known_blocks / kRunBlocks * kRunBlocks;
  while (record->chain.size() < known) {
    const size_t first = record->chain.size();
    const auto some = text.chain.subspan(first, std::min(kAdoptBlocks, known - first));
    const uint64_t before = record->durable_tokens;
    auto adopted = store_->AdoptBlocks(*record, some);
    const StatusCode code = adopted.status().code();
    if (code == StatusCode::kNotFound) return OkStatus();  // gone since: computed as any other
    if (code == StatusCode::kAborted) {                    // renamed, pinned or touched meanwhile
      ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
      continue;
    }
    ASSIGN_OR_RETURN(*record, std::move(adopted));
    state->reused_tokens += record->durable_tokens - before;
  }
  return OkStatus();
}

Status LlamaEngine::CutToUnit(uint32_t unit_tokens, CorpusRecord* record) {
  while (record->chain.size() * kBlockTokens % unit_tokens != 0) {
    const size_t blocks =
        record->chain.size() * kBlockTokens / unit_tokens * (unit_tokens / kBlockTokens);
    record->chain.resize(blocks);
    record->durable_tokens = blocks * kBlockTokens;
    auto cut = store_->UpdateCorpus(*record);
    if (cut.status().code() == StatusCode::kAborted) {  // renamed, pinned or touched meanwhile
      ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
      continue;
    }
    ASSIGN_OR_RETURN(*record, std::move(cut));
  }
  return OkStatus();
}

Status LlamaEngine::PublishSegment(const ExactText& text, const LeaderPrefill::Segment& segment,
                                   double seconds, CorpusRecord* record, PrefillProgress* state) {
  const uint64_t first_token = segment.first_block * kBlockTokens;
  std::vector<BlockWrite> writes;
  for (size_t i = 0; i < segment.blocks.size(); ++i) {
    const auto& parts = segment.blocks[i];
    const uint64_t block = segment.first_block + i;
    const auto ids = text.tokens.subspan(
        block * kBlockTokens, std::min<uint64_t>(kBlockTokens, segment.end - block * kBlockTokens));
    writes.push_back({text.chain[block],
                      {ids.begin(), ids.end()},
                      parts.front(),
                      StoredSections(text.layout.OfPart(text.layout.blocks, 0)),
                      {parts.begin() + 1, parts.end()},
                      segment.shelved[i]});
  }
  while (true) {
    CorpusRecord grown = *record;
    grown.prefill_seconds += seconds;
    grown.prefill_tokens += segment.end - first_token;
    HoldParts(text.layout, segment.end, segment.first_block, &grown.parts);
    auto published = store_->Publish(grown, writes);
    if (published.ok()) {
      *record = *std::move(published);
      break;
    }
    if (published.status().code() != StatusCode::kAborted) return published.status();
    // Renamed, pinned or touched meanwhile: the blocks are the same.
    ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
    if (record->chain.size() != segment.first_block) return published.status();
  }
  for (const BlockWrite& write : writes) state->written_bytes += write.payload.size();
  return OkStatus();
}

Status LlamaEngine::MakeRoomOnShelves(const RankLeader& leader, std::span<const uint64_t> bytes,
                                      const CorpusRecord& record) {
  for (uint32_t rank = 1; rank < bytes.size(); ++rank) {
    if (bytes[rank] == 0) continue;
    RETURN_IF_ERROR(store_->MakeRoomOnShelf(leader.members()[rank], bytes[rank], record));
  }
  return OkStatus();
}

Status LlamaEngine::PrefillOverRanks(const std::shared_ptr<RankLeader>& leader,
                                     const ExactText& text, CorpusRecord* record,
                                     PrefillProgress* state,
                                     const std::function<void(const PrefillProgress&)>& progress,
                                     const std::stop_token& stop) {
  RETURN_IF_ERROR(AdoptKnown(text, record, state));
  const auto unit = LeaderPrefill::UnitTokens(*leader, text.layout);
  if (unit.status().code() == StatusCode::kUnimplemented) return OkStatus();  // one rank does it
  RETURN_IF_ERROR(unit.status());
  // Too little to be dealt.
  const uint64_t left = text.tokens.size() - record->durable_tokens;
  if (left < uint64_t{kBlockTokens} * leader->size()) return OkStatus();
  RETURN_IF_ERROR(CutToUnit(*unit, record));
  const auto begin = [&] {
    return LeaderPrefill::Begin(leader, text.layout,
                                {text.tokens, text.chain, record->chain.size()});
  };
  auto begun = begin();
  if (begun.status().code() == StatusCode::kCorruption) {
    RETURN_IF_ERROR(
        RepairInPieces(context(), *store_, *record, text.layout, text.tokens, stop).status());
    begun = begin();
  }
  if (HasNoRoom(begun.status())) return OkStatus();
  ASSIGN_OR_RETURN(const auto prefill, std::move(begun));
  while (!prefill->done()) {
    if (stop.stop_requested()) {
      return CancelledError("the prefill of corpus '" + record->name + "' was stopped after " +
                            std::to_string(record->durable_tokens) + " tokens, which stay");
    }
    const Status room = MakeRoomOnShelves(*leader, prefill->NextBytes(), *record);
    if (HasNoRoom(room)) return OkStatus();
    RETURN_IF_ERROR(room);
    const auto start = std::chrono::steady_clock::now();
    const auto segment = prefill->Next();
    if (HasNoRoom(segment.status())) return OkStatus();
    RETURN_IF_ERROR(segment.status());
    RETURN_IF_ERROR(PublishSegment(text, *segment, SecondsSince(start), record, state));
    state->done_tokens = record->durable_tokens;
    progress(*state);
    const Status stored = prefill->done() ? OkStatus() : prefill->Stored();
    if (HasNoRoom(stored)) return OkStatus();
    RETURN_IF_ERROR(stored);
  }
  return OkStatus();
}

}  // namespace corpusd
