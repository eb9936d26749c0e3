// What a RankWorker computes of corpora: its rows of an exact one, its segments of another.
#include <algorithm>

#include "engine/ranks/worker_checks.h"
#include "engine/ranks/worker_state.h"

namespace corpusd {

Status RankWorker::BeginPrefill(RankMessageReader& message) {
  const uint64_t id = message.Number();
  ASSIGN_OR_RETURN(Opened* const opened, Find(id));
  RankedPrefillOptions options;
  options.rank_tokens = static_cast<uint32_t>(message.Number());
  auto prefill = std::make_unique<Prefilled>();
  prefill->shelved = message.Number() != 0;
  prefill->history = opened->pages;
  prefill->chain = message.Array<Digest>();
  prefill->tokens = message.Array<TokenId>();
  RETURN_IF_ERROR(message.Finish());
  const RankPages::Text& known = opened->pages->text();
  RETURN_IF_ERROR(CheckText(prefill->chain.size(), prefill->tokens.size()));
  if (options.rank_tokens == 0 || options.rank_tokens > kRankRowsMax ||
      known.tokens >= prefill->tokens.size()) {
    return InternalError("rank 0 began a prefill of nothing");
  }
  prefill->next = known.tokens;
  prefill->copies = std::make_unique<HostCopies>(*local_);
  const RankPages& pages = *prefill->history;
  ASSIGN_OR_RETURN(prefill->prefill, RankedPrefill::Create(*model_, *backend_, channels_.data(),
                                                           pages.layout(), options));
  for (size_t i = 0; i < pages.wanted().size(); ++i) {
    const WantedBlock& wanted = pages.wanted()[i];
    if (!pages.Has(i)) return InternalError("rank 0 did not send a block of the history");
    if (wanted.part > 0) {
      prefill->prefill->AddWindow(wanted.block, wanted.part, pages.bytes(i));
    } else {
      prefill->prefill->AddHistory(wanted.block, pages.bytes(i));
    }
  }
  prefills_[id] = std::move(prefill);
  return OkStatus();
}

// What this rank gave out before is leased where it is kept, and need not stay where it was
// computed.
Status RankWorker::Settle(Prefilled& prefill) {
  if (prefill.fresh.empty()) return OkStatus();
  std::vector<Digest> digests;
  for (const Prefilled::Kept& kept : prefill.fresh) digests.push_back(prefill.chain[kept.block]);
  ASSIGN_OR_RETURN(auto refs, blocks_->Find(digests));
  std::vector<BlockHolder::Block> leased;
  const KvLayout& layout = prefill.history->layout();
  const uint32_t sections = StoredSections(layout.OfPart(layout.blocks, 0));
  for (size_t i = 0; i < refs.size(); ++i) {
    const Prefilled::Kept& kept = prefill.fresh[i];
    const BlockPlace place = PlaceOf(prefill.chain, kept.block);
    if (!refs[i].valid()) {
      ASSIGN_OR_RETURN(refs[i], blocks_->Keep({digests[i], kept.tokens, place, kept.bytes}));
    }
    leased.push_back({std::move(refs[i]), place, sections});
  }
  ASSIGN_OR_RETURN(auto held, holder_->Hold(leased));
  for (size_t i = 0; i < held.size(); ++i) {
    prefill.prefill->AddHistory(prefill.fresh[i].block, held[i].data());
    prefill.leases.push_back(std::move(held[i]));
  }
  prefill.fresh.clear();
  prefill.computed.clear();
  prefill.prefill->DropComputed();
  return OkStatus();
}

// What this rank gave out or computed in the last segment, where the CPU reads it.
Status RankWorker::BringToHost(Prefilled& prefill) {
  prefill.computed = prefill.prefill->computed();
  std::map<uint64_t, std::span<const std::byte>*> kept;
  std::vector<std::span<const std::byte>*> bytes;
  for (Prefilled::Kept& one : prefill.fresh) {
    kept[one.block] = &one.bytes;
    bytes.push_back(&one.bytes);
  }
  for (auto& [block, parts] : prefill.computed) {
    const bool first = prefill.shelved || kept.contains(block);  // lies here, or is not given
    for (size_t part = first ? 1 : 0; part < parts.size(); ++part) bytes.push_back(&parts[part]);
  }
  RETURN_IF_ERROR(prefill.copies->Bring(bytes));
  for (auto& [block, parts] : prefill.computed) {
    if (const auto here = kept.find(block); here != kept.end()) parts[0] = *here->second;
  }
  return OkStatus();
}

Status RankWorker::GiveBlocks(const Prefilled& prefill, const RankedPass& pass) {
  const KvLayout& layout = prefill.history->layout();
  std::vector<TransferPtr> sending;
  for (const auto& [block, parts] : prefill.computed) {
    if (pass.ComputedBy(block) != control().rank()) continue;
    const uint32_t given = PartsGiven(layout, pass, prefill.prefill->unit_tokens(), block);
    for (uint32_t part = prefill.shelved ? 1 : 0; part < given; ++part) {
      sending.push_back(control().Send(0, parts[part]));
    }
  }
  return WaitAll(sending);
}

// Stores what this rank keeps of the last segment, and says where.
Status RankWorker::Shelve(Prefilled& prefill) {
  std::vector<BlockWrite> writes;
  const auto& layout = prefill.history->layout();
  for (const Prefilled::Kept& kept : prefill.fresh) {
    const auto ids = std::span(prefill.tokens).subspan(kept.block * kBlockTokens, kept.tokens);
    writes.push_back({prefill.chain[kept.block],
                      {ids.begin(), ids.end()},
                      kept.bytes,
                      StoredSections(layout.OfPart(layout.blocks, 0))});
  }
  std::vector<const BlockWrite*> blocks;
  for (const BlockWrite& write : writes) blocks.push_back(&write);
  ShelvedExtent where;
  std::vector<ShelvedPlace> places(writes.size());
  Status stored = shelf_ == nullptr ? InternalError("this rank has no disk") : OkStatus();
  if (stored.ok() && !blocks.empty()) {
    const auto extent = shelf_->Write(blocks);
    stored = extent.status();
    for (size_t i = 0; i < writes.size() && stored.ok(); ++i) {
      where = {extent->number, extent->bytes};
      places[i] = {extent->locations[i].ordinal, writes[i].payload.size()};
    }
  }
  if (stored.ok()) stored = Settle(prefill);
  RETURN_IF_ERROR(Answer(stored));
  RETURN_IF_ERROR(Send(std::as_bytes(std::span(&where, 1))));
  return places.empty() ? OkStatus() : Send(std::as_bytes(std::span(places)));
}

Status RankWorker::Segment(RankMessageReader& message) {
  const auto found = prefills_.find(message.Number());
  const uint64_t first = message.Number();
  RETURN_IF_ERROR(message.Finish());
  if (found == prefills_.end()) return InternalError("rank 0 began no such prefill");
  Prefilled& prefill = *found->second;
  if (first != prefill.next || first >= prefill.tokens.size() || first % kRunTokens != 0 ||
      first % prefill.prefill->unit_tokens() != 0) {
    return InternalError("rank 0 named a segment that does not follow the one before");
  }
  // Of a store that is rank 0's, too, what it has stored meanwhile. Where that has no room, what
  // was computed stays where it is until rank 0 gives this up.
  const Status settled = Settle(prefill);
  if (!settled.ok()) prefill.fresh.clear();
  const RankedPass pass = prefill.prefill->NextPass(first, prefill.tokens.size());
  const auto end = prefill.prefill->RunNext(prefill.tokens, first, [&](const KeptBlock& kept) {
    if (!kept.parts[0].empty()) prefill.fresh.push_back({kept.block, kept.tokens, kept.parts[0]});
    return OkStatus();
  });
  RETURN_IF_ERROR(end.status());
  prefill.next = *end;
  RETURN_IF_ERROR(BringToHost(prefill));
  RETURN_IF_ERROR(GiveBlocks(prefill, pass));
  if (prefill.shelved) return Shelve(prefill);
  return Answer(settled.ok() && blocks_->keeps() ? Settle(prefill) : settled);
}

Status RankWorker::BeginDocuments(RankMessageReader& message) {
  const uint64_t id = message.Number();
  ASSIGN_OR_RETURN(Opened* const opened, Find(id));
  CorpusRecord record;
  record.segments.window_tokens = static_cast<uint32_t>(message.Number());
  record.segments.overlap_tokens = static_cast<uint32_t>(message.Number());
  const auto numbers = message.Array<uint64_t>();
  auto documents = std::make_unique<Documents>();
  documents->tokens = message.Array<TokenId>();
  RETURN_IF_ERROR(message.Finish());
  RETURN_IF_ERROR(CheckAtHand(*opened->pages));
  for (size_t i = 0; i + 1 < numbers.size(); i += 2) {
    CorpusSource source;
    source.first_token = numbers[i];
    source.tokens = numbers[i + 1];
    record.sources.push_back(std::move(source));
  }
  record.tokens = documents->tokens.size();
  RETURN_IF_ERROR(CheckSegmented(record, kBlockTokens));
  documents->chain = std::make_unique<CorpusChain>(record, kBlockTokens);
  documents->digests.resize(documents->chain->blocks());
  documents->text = {documents->tokens, documents->chain.get(), documents->digests};
  if (documents->text.preamble().size() != opened->pages->text().tokens) {
    return InternalError("rank 0 began documents behind another preamble");
  }
  documents->preamble = opened->pages->Pages();
  documents->context = std::make_unique<ComputeContext>(ComputeContext{*model_, *backend_, gate_});
  documents->runner = std::make_unique<SegmentRunner>(*documents->context, documents->text,
                                                      opened->pages->layout(), documents->preamble);
  documents_[id] = std::move(documents);
  return OkStatus();
}

Status RankWorker::Windows(RankMessageReader& message) {
  const auto found = documents_.find(message.Number());
  const uint64_t first = message.Number(), count = message.Number();
  RETURN_IF_ERROR(message.Finish());
  if (found == documents_.end()) return InternalError("rank 0 began no such documents");
  const auto all = found->second->chain->segments();
  if (first > all.size() || count > all.size() - first)
    return InternalError("rank 0 named segments that are not there");
  const auto segments = all.subspan(first, count);
  const auto begins = DealSegments(segments, control().size());
  const size_t begin = begins[control().rank()];
  ASSIGN_OR_RETURN(auto computed, found->second->runner->Compute(
                                      segments.subspan(begin, begins[control().rank() + 1] - begin),
                                      ComputePriority::kPrefill, {}));
  std::vector<TransferPtr> sending;
  std::vector<std::vector<std::byte>> joined;
  std::unique_ptr<Buffer> stage;
  for (ComputedSegment& segment : computed) {
    RETURN_IF_ERROR(corpusd::BringToHost(*local_, segment.writes, &stage));
    std::vector<std::byte>& bytes = joined.emplace_back();
    for (const BlockWrite& write : segment.writes) {
      bytes.insert(bytes.end(), write.payload.begin(), write.payload.end());
    }
    sending.push_back(control().Send(0, bytes));
  }
  return WaitAll(sending);
}

}  // namespace corpusd
