#include "engine/ranks/leader_prefill.h"

#include <algorithm>

#include "store/pin_ledger.h"

namespace corpusd {
namespace {

constexpr uint32_t kRankTokens = kRunTokens;

}  // namespace

uint32_t RankTokensOf(const Backend& backend) {
  return std::max(kRankTokens, backend.batch_rows());
}

uint32_t PartsGiven(const KvLayout& layout, const RankedPass& pass, uint32_t unit_tokens,
                    uint64_t block) {
  const auto parts = static_cast<uint32_t>(layout.part_count());
  if (parts == 1) return 1;
  // Points of a window may be anywhere.
  const auto& all = layout.parts->parts;
  const bool windows = std::any_of(all.begin(), all.end(), [](const auto& p) { return p.window; });
  const bool seen = block * kBlockTokens >= (pass.tokens - 1) / unit_tokens * unit_tokens;
  return windows || seen ? parts : 1;
}

std::vector<uint64_t> KeptBlocks(const Placement& placement, const KvLayout& layout,
                                 const RankedPass& pass, uint32_t rank) {
  const uint64_t sinks = layout.sinks == nullptr ? 0 : 1;
  std::vector<uint64_t> blocks;
  const uint64_t end = (pass.tokens + kBlockTokens - 1) / kBlockTokens;
  for (uint64_t block = pass.first_token / kBlockTokens; block < end; ++block) {
    if (placement.RankOfPage(block + sinks) == rank) blocks.push_back(block);
  }
  return blocks;
}

Result<uint32_t> LeaderPrefill::UnitTokens(RankLeader& leader, const KvLayout& layout) {
  const RankContext& context = leader.context();
  ASSIGN_OR_RETURN(const auto prefill, RankedPrefill::Create(context.model, context.backend,
                                                             leader.data(), layout, {}));
  return std::max(prefill->unit_tokens(), kRunTokens);
}

Result<std::unique_ptr<LeaderPrefill>> LeaderPrefill::Begin(std::shared_ptr<RankLeader> leader,
                                                            const KvLayout& layout,
                                                            const Text& text) {
  const RankContext& context = leader->context();
  RankedPrefillOptions options;
  options.rank_tokens = RankTokensOf(context.backend);
  std::unique_ptr<LeaderPrefill> begun(new LeaderPrefill(leader, layout, text));
  begun->next_ = text.stored_blocks * kBlockTokens;
  ASSIGN_OR_RETURN(begun->prefill_, RankedPrefill::Create(context.model, context.backend,
                                                          leader->data(), layout, options));
  ASSIGN_OR_RETURN(begun->history_,
                   leader->Open(layout, {text.chain.first(text.stored_blocks), begun->next_}));
  const RankPages& pages = *begun->history_.pages;
  for (size_t i = 0; i < pages.wanted().size(); ++i) {
    const WantedBlock& wanted = pages.wanted()[i];
    if (wanted.part > 0) {
      begun->prefill_->AddWindow(wanted.block, wanted.part, pages.bytes(i));
    } else {
      begun->prefill_->AddHistory(wanted.block, pages.bytes(i));
    }
  }
  // All of them have a disk, or rank 0 stores everything.
  const auto epochs = leader->ShelfEpochs();
  const bool shelves = std::count(epochs.begin() + 1, epochs.end(), uint64_t{0}) == 0;
  // Blocks of no layers are dealt to nobody.
  if (shelves && layout.OfPart(layout.blocks, 0).layers > 0) begun->epochs_ = epochs;
  std::unique_ptr<RankLeader::Sent> sent;
  {
    const ComputeGate::Turn turn(context.gate, ComputePriority::kPrefill);
    sent = leader->Tell(RankVerb::kPrefill, RankMessage()
                                                .Number(begun->history_.id)
                                                .Number(options.rank_tokens)
                                                .Number(begun->shelved() ? 1 : 0)
                                                .Array(text.chain)
                                                .Array(text.tokens)
                                                .Take());
  }
  RETURN_IF_ERROR(leader->Await(*sent));
  return begun;
}

LeaderPrefill::~LeaderPrefill() {
  if (history_.pages != nullptr) leader_->Close(history_.id);
}

// What other ranks computed, in the order of the blocks.
void LeaderPrefill::ReceiveBlocks(const RankedPass& pass, std::vector<TransferPtr>* arriving) {
  const uint64_t end = (pass.tokens + kBlockTokens - 1) / kBlockTokens;
  for (uint64_t block = pass.first_token / kBlockTokens; block < end; ++block) {
    const uint32_t rank = pass.ComputedBy(block);
    if (rank == 0) continue;
    auto& parts = received_[block];
    parts.resize(PartsGiven(layout_, pass, prefill_->unit_tokens(), block));
    for (uint32_t part = shelved() ? 1 : 0; part < parts.size(); ++part) {
      parts[part].resize(StoredBytes(layout_.OfPart(layout_.blocks, part)));
      arriving->push_back(leader_->control().Receive(rank, parts[part]));
    }
  }
}

void LeaderPrefill::ReceiveAnswers(const RankedPass& pass, std::vector<Answer>* answers,
                                   std::vector<TransferPtr>* arriving) {
  const auto receive = [&](uint32_t rank, std::span<std::byte> bytes) {
    if (!bytes.empty()) arriving->push_back(leader_->control().Receive(rank, bytes));
  };
  answers->resize(leader_->size());
  for (uint32_t rank = 1; rank < leader_->size(); ++rank) {
    Answer& answer = (*answers)[rank];
    receive(rank, std::as_writable_bytes(std::span(&answer.reply, 1)));
    if (!shelved()) continue;
    answer.places.resize(KeptBlocks(leader_->placement(), layout_, pass, rank).size());
    receive(rank, std::as_writable_bytes(std::span(&answer.extent, 1)));
    receive(rank, std::as_writable_bytes(std::span(answer.places)));
  }
}

Status LeaderPrefill::BringToHost() {
  computed_ = prefill_->computed();
  std::vector<std::span<const std::byte>*> bytes;
  for (auto& [block, part] : own_) bytes.push_back(&part);
  for (auto& [block, parts] : computed_) {
    // What lies with the rank that keeps it, or here already, is not read.
    for (size_t part = own_.contains(block) || shelved() ? 1 : 0; part < parts.size(); ++part) {
      bytes.push_back(&parts[part]);
    }
  }
  RETURN_IF_ERROR(copies_.Bring(bytes));
  for (auto& [block, parts] : computed_) {
    if (const auto here = own_.find(block); here != own_.end()) parts[0] = here->second;
  }
  return OkStatus();
}

LeaderPrefill::Segment LeaderPrefill::TakeSegment(const RankedPass& pass,
                                                  std::span<const Answer> answers) const {
  Segment segment;
  segment.first_block = pass.first_token / kBlockTokens;
  segment.end = pass.tokens;
  const uint64_t end = (pass.tokens + kBlockTokens - 1) / kBlockTokens;
  for (uint64_t block = segment.first_block; block < end; ++block) {
    auto& parts = segment.blocks.emplace_back();
    const auto received = received_.find(block);
    if (received == received_.end()) {
      parts = computed_.at(block);
    } else {
      for (const auto& part : received->second) parts.emplace_back(part);
    }
    parts.resize(layout_.part_count());
  }
  segment.shelved.resize(segment.blocks.size());
  if (!shelved()) return segment;
  for (const auto& [block, bytes] : own_) segment.blocks[block - segment.first_block][0] = bytes;
  for (uint32_t rank = 1; rank < leader_->size(); ++rank) {
    const Answer& answer = answers[rank];
    size_t i = 0;
    for (const uint64_t block : KeptBlocks(leader_->placement(), layout_, pass, rank)) {
      const ShelvedPlace& place = answer.places[i++];
      segment.blocks[block - segment.first_block][0] = {};
      segment.shelved[block - segment.first_block] = {
          leader_->members()[rank],
          epochs_[rank],
          {answer.extent.number, static_cast<uint32_t>(place.ordinal)},
          answer.extent.bytes,
          place.payload_bytes};
    }
  }
  return segment;
}

std::vector<uint64_t> LeaderPrefill::NextBytes() const {
  if (!shelved() || done()) return {};
  const RankedPass pass = prefill_->NextPass(next_, text_.tokens.size());
  const uint64_t block_bytes =
      StoredBytes(layout_.OfPart(layout_.blocks, 0)) + kPinnedBlockOverheadBytes;
  std::vector<uint64_t> bytes;
  for (uint32_t rank = 0; rank < leader_->size(); ++rank) {
    bytes.push_back(block_bytes * KeptBlocks(leader_->placement(), layout_, pass, rank).size());
  }
  return bytes;
}

Result<LeaderPrefill::Segment> LeaderPrefill::Next() {
  RETURN_IF_ERROR(leader_->status());
  const RankedPass pass = prefill_->NextPass(next_, text_.tokens.size());
  std::unique_ptr<RankLeader::Sent> sent;
  std::vector<TransferPtr> arriving;
  std::vector<Answer> answers;
  Status status;
  {
    const ComputeGate::Turn turn(leader_->context().gate, ComputePriority::kPrefill);
    sent =
        leader_->Tell(RankVerb::kSegment, RankMessage().Number(history_.id).Number(next_).Take());
    const auto end = prefill_->RunNext(text_.tokens, next_, [&](const KeptBlock& kept) {
      if (!kept.parts[0].empty()) own_[kept.block] = kept.parts[0];
      return OkStatus();
    });
    // What another rank waits for does not come any more.
    status = end.ok() ? OkStatus() : leader_->End(end.status());
    if (status.ok()) {
      ReceiveBlocks(pass, &arriving);
      ReceiveAnswers(pass, &answers, &arriving);
    }
  }
  const Status brought = status.ok() ? BringToHost() : OkStatus();
  const Status told = leader_->Await(*sent), come = leader_->Await(arriving);
  for (const Status& one : {status, told, come, brought}) RETURN_IF_ERROR(one);
  for (uint32_t rank = 1; rank < leader_->size(); ++rank) {
    RETURN_IF_ERROR(answers[rank].reply.status().WithContext(leader_->control().NameOf(rank)));
  }
  leader_->CountPass();
  next_ = pass.tokens;
  return TakeSegment(pass, answers);
}

Status LeaderPrefill::Stored() {
  std::vector<Digest> digests;
  std::vector<uint64_t> blocks;
  for (const auto& [block, bytes] : own_) {
    blocks.push_back(block);
    digests.push_back(text_.chain[block]);
  }
  FetchStats stats;
  ASSIGN_OR_RETURN(auto refs, leader_->context().store.Fetch(digests, &stats));
  if (!stats.damaged.empty() || !stats.missing.empty()) {
    return CorruptionError("a block that was just stored is damaged or missing");
  }
  std::vector<BlockHolder::Block> leased;
  const uint32_t sections = StoredSections(layout_.OfPart(layout_.blocks, 0));
  for (size_t i = 0; i < refs.size(); ++i) {
    leased.push_back({std::move(refs[i]), {text_.chain.front(), blocks[i]}, sections});
  }
  ASSIGN_OR_RETURN(auto held, leader_->context().holder.Hold(leased));
  for (size_t i = 0; i < held.size(); ++i) {
    prefill_->AddHistory(blocks[i], held[i].data());
    kept_.push_back(std::move(held[i]));
  }
  own_.clear();
  computed_.clear();
  received_.clear();
  prefill_->DropComputed();
  return OkStatus();
}

std::vector<size_t> DealSegments(std::span<const CorpusSegment> segments, uint32_t ranks) {
  const auto work = [](const CorpusSegment& s) { return s.context_tokens + s.tokens; };
  uint64_t all = 0, before = 0;
  for (const CorpusSegment& segment : segments) all += work(segment);
  std::vector<size_t> begins{0};
  for (size_t i = 0; i < segments.size(); ++i) {
    // The first whose middle lies in the next rank's share begins it.
    const uint64_t middle = before + work(segments[i]) / 2;
    while (begins.size() < ranks && middle * ranks >= all * begins.size()) begins.push_back(i);
    before += work(segments[i]);
  }
  begins.resize(ranks + 1, segments.size());
  return begins;
}

Result<std::unique_ptr<LeaderDocuments>> LeaderDocuments::Begin(std::shared_ptr<RankLeader> leader,
                                                                const KvLayout& layout,
                                                                const CorpusRecord& record,
                                                                const SegmentedText& text) {
  std::unique_ptr<LeaderDocuments> begun(new LeaderDocuments(leader, layout, text));
  const auto preamble = text.preamble();
  ASSIGN_OR_RETURN(begun->preamble_,
                   leader->Open(layout, {text.preamble_digests(), preamble.size(), true}));
  std::vector<uint64_t> sources;
  for (const CorpusSource& source : record.sources) {
    sources.push_back(source.first_token);
    sources.push_back(source.tokens);
  }
  std::unique_ptr<RankLeader::Sent> sent;
  {
    const ComputeGate::Turn turn(leader->context().gate, ComputePriority::kPrefill);
    sent = leader->Tell(RankVerb::kDocuments, RankMessage()
                                                  .Number(begun->preamble_.id)
                                                  .Number(record.segments.window_tokens)
                                                  .Number(record.segments.overlap_tokens)
                                                  .Array(std::span<const uint64_t>(sources))
                                                  .Array(text.tokens)
                                                  .Take());
  }
  RETURN_IF_ERROR(leader->Await(*sent));
  return begun;
}

Result<std::vector<ComputedSegment>> LeaderDocuments::Compute(
    std::span<const CorpusSegment> segments, SegmentRunner& runner, const std::stop_token& stop) {
  RETURN_IF_ERROR(leader_->status());
  const RankContext& context = leader_->context();
  const std::vector<size_t> begins = DealSegments(segments, leader_->size());
  const uint64_t block_bytes = layout_.blocks.BlockBytes();
  const auto first = static_cast<uint64_t>(segments.data() - text_.chain->segments().data());
  std::vector<std::shared_ptr<Buffer>> buffers(segments.size());
  for (size_t i = begins[1]; i < segments.size(); ++i) {
    ASSIGN_OR_RETURN(buffers[i], context.backend.AllocateShared(segments[i].blocks * block_bytes,
                                                                "blocks of another rank"));
  }
  std::unique_ptr<RankLeader::Sent> sent;
  std::vector<TransferPtr> arriving;
  {
    const ComputeGate::Turn turn(context.gate, ComputePriority::kPrefill);
    sent = leader_->Tell(
        RankVerb::kWindows,
        RankMessage().Number(preamble_.id).Number(first).Number(segments.size()).Take());
    // At once: what comes while this rank is at its own share must not wait for it.
    for (uint32_t rank = 1; rank < leader_->size(); ++rank) {
      for (size_t i = begins[rank]; i < begins[rank + 1]; ++i) {
        const std::span<std::byte> bytes(buffers[i]->data(), segments[i].blocks * block_bytes);
        arriving.push_back(leader_->control().Receive(rank, bytes));
      }
    }
  }
  auto own = runner.Compute(segments.first(begins[1]), ComputePriority::kPrefill, stop);
  const Status told = leader_->Await(*sent), come = leader_->Await(arriving);
  for (const Status& one : {own.status(), told, come}) RETURN_IF_ERROR(one);
  leader_->CountPass();
  std::vector<ComputedSegment> computed = *std::move(own);
  for (size_t i = begins[1]; i < segments.size(); ++i) {
    ComputedSegment& segment = computed.emplace_back();
    segment.writes = runner.WritesOf(segments[i], buffers[i]->data());
    segment.held = std::move(buffers[i]);
  }
  return computed;
}

}  // namespace corpusd
