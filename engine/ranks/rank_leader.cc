#include "engine/ranks/rank_leader.h"

#include <algorithm>

#include "engine/ranks/ranked_model.h"

namespace corpusd {
namespace {

// Blocks that another rank lacks are read and sent so many bytes at a time.
constexpr uint64_t kFillBytes = uint64_t{32} << 20;

template <typename T>
std::span<std::byte> BytesOf(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

Placement JoinGroup(const RankContext& context, Transport& data) {
  const ComputeGate::Turn turn(context.gate, ComputePriority::kQuestion);
  context.backend.Join(data);
  return context.backend.attention().placement();
}

}  // namespace

Status RankChannels::ConnectDevices(DeviceSource& devices, const std::string& device,
                                    std::chrono::milliseconds timeout) {
  auto made = devices.Connect(*control, device, timeout);
  if (!made.ok()) {
    control->Abort(made.status());
    return made.status();
  }
  own_data = *std::move(made);
  if (own_data == nullptr) return OkStatus();
  // A device waits for another one without an end, unless it is told.
  control->OnEnd([data = own_data.get()](const Status& why) { data->Abort(why); });
  return OkStatus();
}

// Goes where a sequence of rank 0's goes.
class RankLeader::Twin final : public RankedTwin {
 public:
  Twin(std::shared_ptr<RankLeader> leader, uint64_t id, std::shared_ptr<const RankPages> pages)
      : leader_(std::move(leader)), id_(id), pages_(std::move(pages)) {}
  ~Twin() override { leader_->Close(id_); }
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;

  const void* group() const override { return leader_.get(); }
  std::shared_ptr<SequenceTwin> Fork() override {
    const uint64_t id = leader_->next_id_++;
    ++leader_->open_;
    leader_->Queue(RankVerb::kFork, RankMessage().Number(id_).Number(id).Take());
    return std::make_shared<Twin>(leader_, id, pages_);
  }
  Status Pass(bool each, std::span<const TokenId> tokens, std::span<const SequenceRows> sequences,
              const std::function<Status()>& compute) override {
    std::vector<uint64_t> ids;
    for (const SequenceRows& one : sequences) {
      CHECK(one.kv->twin()->group() == group()) << "sequences of two groups do not mix";
      ids.push_back(static_cast<const Twin*>(one.kv->twin())->id_);
    }
    return leader_->Pass(each, tokens, ids, sequences, compute);
  }

 private:
  const std::shared_ptr<RankLeader> leader_;
  const uint64_t id_;
  const std::shared_ptr<const RankPages> pages_;  // whose memory the sequence reads
};

RankLeader::RankLeader(const RankContext& context, RankChannels channels,
                       std::vector<uint32_t> members)
    : context_(context),
      channels_(std::move(channels)),
      members_(std::move(members)),
      placement_(JoinGroup(context, channels_.data())) {}

std::vector<uint64_t> RankLeader::ShelfEpochs() const {
  std::vector<uint64_t> epochs(size());
  for (uint32_t rank = 1; rank < size() && context_.shelves != nullptr; ++rank) {
    epochs[rank] = context_.shelves->Epoch(members_[rank]).value_or(0);
  }
  return epochs;
}

Status RankLeader::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

Status RankLeader::End(const Status& why) {
  CHECK(!why.ok()) << "a group ends for a reason";
  {
    const std::lock_guard lock(mutex_);
    // Whatever it was, it may be gone when the group has formed anew.
    if (status_.ok()) status_ = UnavailableError(why.message());
  }
  channels_.Abort(why);
  return status();
}

Status RankLeader::Await(std::vector<TransferPtr>& transfers) {
  const Status moved = WaitAll(transfers);
  return moved.ok() ? OkStatus() : End(moved);
}

void RankLeader::Post(uint32_t rank, const std::pair<RankHeader, std::string>& message,
                      Sent* sent) {
  const auto& [header, body] = message;
  sent->transfers.push_back(control().Send(rank, std::as_bytes(std::span(&header, 1))));
  if (!body.empty()) {
    sent->transfers.push_back(control().Send(rank, std::as_bytes(std::span(body))));
  }
}

void RankLeader::Queue(RankVerb verb, std::string body) {
  const std::lock_guard lock(mutex_);
  queued_.emplace_back(verb, std::move(body));
}

void RankLeader::FlushQueued(Sent* sent) {
  std::vector<std::pair<RankVerb, std::string>> queued;
  {
    const std::lock_guard lock(mutex_);
    queued.swap(queued_);
  }
  for (auto& [verb, body] : queued) {
    const RankHeader header{verb, 0, body.size()};
    const auto& message = sent->messages.emplace_back(header, std::move(body));
    for (uint32_t rank = 1; rank < size(); ++rank) Post(rank, message, sent);
  }
}

std::unique_ptr<RankLeader::Sent> RankLeader::Tell(RankVerb verb, std::string body) {
  auto sent = std::make_unique<Sent>();
  FlushQueued(sent.get());
  const RankHeader header{verb, 0, body.size()};
  const auto& message = sent->messages.emplace_back(header, std::move(body));
  for (uint32_t rank = 1; rank < size(); ++rank) Post(rank, message, sent.get());
  return sent;
}

std::unique_ptr<RankLeader::Sent> RankLeader::TellOne(uint32_t rank, RankVerb verb,
                                                      std::string body) {
  auto sent = std::make_unique<Sent>();
  FlushQueued(sent.get());
  const RankHeader header{verb, 0, body.size()};
  Post(rank, sent->messages.emplace_back(header, std::move(body)), sent.get());
  return sent;
}

Result<std::vector<RankHoldings>> RankLeader::Beat() {
  RETURN_IF_ERROR(status());
  std::vector<RankHoldings> holdings(size());
  std::unique_ptr<Sent> sent;
  std::vector<TransferPtr> answers;
  {
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    sent = Tell(RankVerb::kBeat, "");
    for (uint32_t rank = 1; rank < size(); ++rank) {
      answers.push_back(control().Receive(rank, BytesOf(holdings[rank])));
    }
  }
  const Status told = Await(*sent);
  const Status answered = Await(answers);
  RETURN_IF_ERROR(told);
  RETURN_IF_ERROR(answered);
  return holdings;
}

Result<RankDropped> RankLeader::Drop(std::span<const Digest> digests, bool dry_run) {
  RETURN_IF_ERROR(status());
  std::vector<RankDropped> dropped(size());
  std::unique_ptr<Sent> sent;
  std::vector<TransferPtr> answers;
  {
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    sent = Tell(RankVerb::kDrop, RankMessage().Number(dry_run ? 1 : 0).Array(digests).Take());
    for (uint32_t rank = 1; rank < size(); ++rank) {
      answers.push_back(control().Receive(rank, BytesOf(dropped[rank])));
    }
  }
  const Status told = Await(*sent), answered = Await(answers);
  RETURN_IF_ERROR(told);
  RETURN_IF_ERROR(answered);
  RankDropped all;
  for (const RankDropped& one : dropped) {
    all.blocks += one.blocks;
    all.bytes += one.bytes;
  }
  return all;
}

std::unique_ptr<RankLeader::Sent> RankLeader::TellCalibration(const KvLayout& layout) {
  if (layout.calibration == nullptr) return std::make_unique<Sent>();
  {
    const std::lock_guard lock(mutex_);
    if (!told_.insert(layout.calibration->digest()).second) return std::make_unique<Sent>();
  }
  return Tell(
      RankVerb::kCalibration,
      RankMessage().Text(layout.calibration->digest()).Text(layout.calibration->Bytes()).Take());
}

// missing: by rank, which of the blocks it wants it lacks.
Status RankLeader::AskFor(const KvLayout& layout, const Chain& chain, Share* share,
                          std::vector<std::vector<size_t>>* missing) {
  std::span<const TokenId> first;  // of which each rank makes its exact page
  if (layout.sinks != nullptr) first = layout.sinks->ids;
  std::string body = RankMessage()
                         .Number(share->id)
                         .Text(KvFormatName(layout.blocks))
                         .Text(layout.calibration == nullptr ? "" : layout.calibration->digest())
                         .Array(first)
                         .Array(chain.digests)
                         .Number(chain.tokens)
                         .Number(chain.all ? 1 : 0)
                         .Take();
  std::vector<RankReply> replies(size());
  std::vector<std::vector<std::byte>> lacking(size());
  std::vector<TransferPtr> answers;
  std::unique_ptr<Sent> calibration, opened;
  {
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    calibration = TellCalibration(layout);
    opened = Tell(RankVerb::kOpen, std::move(body));
    for (uint32_t rank = 1; rank < size(); ++rank) {
      const RankPages pages(layout, share->pages->text(), placement_, rank, chain.all);
      lacking[rank].resize(pages.wanted().size());
      answers.push_back(control().Receive(rank, BytesOf(replies[rank])));
      if (lacking[rank].empty()) continue;
      answers.push_back(control().Receive(rank, lacking[rank]));
    }
  }
  const Status told = Await(*calibration), asked = Await(*opened), answered = Await(answers);
  for (const Status& status : {told, asked, answered}) RETURN_IF_ERROR(status);
  missing->assign(size(), {});
  for (uint32_t rank = 1; rank < size(); ++rank) {
    RETURN_IF_ERROR(replies[rank].status().WithContext(control().NameOf(rank)));
    for (size_t i = 0; i < lacking[rank].size(); ++i) {
      if (lacking[rank][i] != std::byte{0}) (*missing)[rank].push_back(i);
    }
  }
  return OkStatus();
}

Status RankLeader::LoadThere(uint64_t id, uint32_t rank, const RankPages& pages,
                             std::vector<size_t>* missing) {
  if (missing->empty() || ShelfEpochs()[rank] == 0) return OkStatus();
  std::vector<Digest> digests;
  for (const size_t i : *missing) digests.push_back(pages.wanted()[i].digest);
  ASSIGN_OR_RETURN(const auto locations, context_.store.Locations(digests));
  std::vector<uint64_t> indices, extents, ordinals;
  std::vector<size_t> rest;
  for (size_t i = 0; i < digests.size(); ++i) {
    if (!locations[i] || ShelfOf(locations[i]->extent) != members_[rank]) {
      rest.push_back((*missing)[i]);
      continue;
    }
    indices.push_back((*missing)[i]);
    extents.push_back(WithoutShelf(locations[i]->extent));
    ordinals.push_back(locations[i]->ordinal);
  }
  if (indices.empty()) return OkStatus();
  std::vector<std::byte> loaded(indices.size());
  RankReply reply;
  std::unique_ptr<Sent> sent;
  {
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    sent = TellOne(rank, RankVerb::kLoad,
                   RankMessage()
                       .Number(id)
                       .Array(std::span<const uint64_t>(indices))
                       .Array(std::span<const uint64_t>(extents))
                       .Array(std::span<const uint64_t>(ordinals))
                       .Take());
    sent->transfers.push_back(control().Receive(rank, BytesOf(reply)));
    sent->transfers.push_back(control().Receive(rank, loaded));
  }
  RETURN_IF_ERROR(Await(*sent));
  RETURN_IF_ERROR(reply.status().WithContext(control().NameOf(rank)));
  // What it could not read, rank 0 reads, and finds out what is wrong.
  for (size_t i = 0; i < indices.size(); ++i) {
    if (loaded[i] == std::byte{0}) rest.push_back(indices[i]);
  }
  *missing = std::move(rest);
  return OkStatus();
}

Status RankLeader::Fill(uint64_t id, uint32_t rank, const RankPages& pages,
                        std::span<const size_t> missing) {
  std::vector<std::vector<std::byte>> payloads;
  std::vector<uint64_t> indices;
  uint64_t bytes = 0;
  for (size_t i = 0; i < missing.size(); ++i) {
    std::vector<std::byte>& payload = payloads.emplace_back();
    uint32_t sections = 0;
    RETURN_IF_ERROR(
        context_.store.ReadBlock(pages.wanted()[missing[i]].digest, &payload, &sections));
    indices.push_back(missing[i]);
    bytes += payload.size();
    if (bytes < kFillBytes && i + 1 < missing.size()) continue;
    RankReply reply;
    std::unique_ptr<Sent> sent;
    {
      const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
      sent = TellOne(rank, RankVerb::kFill,
                     RankMessage().Number(id).Array(std::span<const uint64_t>(indices)).Take());
      for (const auto& one : payloads) sent->transfers.push_back(control().Send(rank, one));
      sent->transfers.push_back(control().Receive(rank, BytesOf(reply)));
    }
    RETURN_IF_ERROR(Await(*sent));
    RETURN_IF_ERROR(reply.status().WithContext(control().NameOf(rank)));
    payloads.clear();
    indices.clear();
    bytes = 0;
  }
  return OkStatus();
}

Result<RankLeader::Share> RankLeader::Open(const KvLayout& layout, const Chain& chain) {
  RETURN_IF_ERROR(status());
  Share share;
  auto pages = std::make_shared<RankPages>(
      layout, RankPages::Text{{chain.digests.begin(), chain.digests.end()}, chain.tokens},
      placement_, 0, chain.all);
  const auto lacking = pages->FindHeld(context_.holder);
  ASSIGN_OR_RETURN(const auto refs, context_.store.Fetch(lacking, &share.stats));
  if (!share.stats.damaged.empty() || !share.stats.missing.empty()) {
    return CorruptionError("a block is damaged or missing");
  }
  RETURN_IF_ERROR(pages->Put(refs, context_.holder));
  share.id = next_id_++;
  share.pages = std::move(pages);
  ++open_;
  std::vector<std::vector<size_t>> missing;
  Status status = AskFor(layout, chain, &share, &missing);
  for (uint32_t rank = 1; rank < size() && status.ok(); ++rank) {
    const RankPages theirs(layout, share.pages->text(), placement_, rank, chain.all);
    status = LoadThere(share.id, rank, theirs, &missing[rank]);
    if (status.ok()) status = Fill(share.id, rank, theirs, missing[rank]);
    share.sent_blocks += missing[rank].size();
  }
  if (status.ok()) return share;
  Close(share.id);
  return status;
}

void RankLeader::Close(uint64_t id) {
  --open_;
  Queue(RankVerb::kClose, RankMessage().Number(id).Take());
}

std::unique_ptr<KvSequence> RankLeader::Sequence(const Share& share) {
  auto kv = share.pages->Sequence();
  kv->Join(std::make_shared<Twin>(shared_from_this(), share.id, share.pages));
  return kv;
}

Status RankLeader::Pass(bool each, std::span<const TokenId> tokens, std::span<const uint64_t> ids,
                        std::span<const SequenceRows> sequences,
                        const std::function<Status()>& compute) {
  RETURN_IF_ERROR(status());
  std::vector<uint64_t> rows;
  for (const SequenceRows& one : sequences) rows.push_back(one.rows);
  const auto sent = Tell(RankVerb::kForward, RankMessage()
                                                 .Number(each ? 1 : 0)
                                                 .Array(ids)
                                                 .Array(std::span<const uint64_t>(rows))
                                                 .Array(tokens)
                                                 .Take());
  context_.backend.Begin({}, ReachOf(context_.model.config()));
  const Status computed = compute();
  context_.backend.End();
  // The others wait for what this rank does not do any more.
  const Status ended = computed.ok() ? OkStatus() : End(computed);
  const Status told = Await(*sent);
  CountPass();
  return ended.ok() ? told : ended;
}

}  // namespace corpusd
