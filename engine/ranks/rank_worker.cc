#include "engine/ranks/rank_worker.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/backend/device_backend.h"
#include "engine/backend/node_attention.h"
#include "engine/model/quantized_source.h"
#include "engine/ranks/worker_checks.h"
#include "engine/ranks/worker_state.h"
#include "store/base/fault_point.h"

namespace corpusd {

std::string ArithmeticOf(const Backend& backend) {
  const std::string_view name = backend.name();
  // "cuda:1 (NVIDIA H200)": whichever it is of its host's.
  const size_t device = name.find(" (");
  return std::string(name.starts_with("cuda:") && device != std::string_view::npos
                         ? "cuda" + std::string(name.substr(device))
                         : name);
}

RankWorker::RankWorker() = default;
RankWorker::~RankWorker() = default;

Result<std::unique_ptr<RankWorker>> RankWorker::Create(const RankWorkerOptions& options) {
  std::unique_ptr<RankWorker> worker(new RankWorker);
  ASSIGN_OR_RETURN(const WeightMode weights, ParseWeightMode(options.weights));
  ASSIGN_OR_RETURN(auto source, OpenModelSource(options.model_path));
  source = WithWeights(std::move(source), weights, options.threads);
  worker->devices_ = options.devices;
  worker->device_ = options.device;
  // A device's memory is shared out before the weights come.
  ASSIGN_OR_RETURN(const DeviceRoom room,
                   options.devices->MakeRoom(options.device, options.device_bytes));
  const auto lost = [here = worker.get()](const Status& /*why*/) { here->lost_ = true; };
  ASSIGN_OR_RETURN(worker->local_, options.devices->MakeBackend(
                                       options.device, {options.threads, options.isa}, lost));
  if (NodeAttentionOf(*worker->local_) == nullptr) {
    return UnimplementedError("'" + worker->backend() + "' has no attention over several ranks");
  }
  Backend* over = worker->local_.get();
  if (options.tensor_devices.size() > 1) {
    ASSIGN_OR_RETURN(worker->tensor_devices_, TensorDevices::Open(*over, *over,
                                                                  {options.tensor_devices,
                                                                   options.devices,
                                                                   {options.threads, options.isa},
                                                                   options.shared.timeout,
                                                                   lost}));
    over = worker->tensor_devices_.get();
  }
  worker->backend_ = std::make_unique<RankedBackend>(*over, *worker->local_);
  ASSIGN_OR_RETURN(worker->weights_, source->WeightsDigestHex(options.cache_dir));
  RETURN_IF_ERROR(worker->LoadModelOver(*source, options));
  worker->blocks_ = options.store == nullptr ? BlocksInMemory(options.host_bytes, room.memory)
                                             : BlocksOfStore(*options.store);
  worker->holder_ = room.memory == nullptr ? HoldInHost() : HoldOnDevice(*worker->local_, room);
  worker->shelf_ = options.shelf;
  return worker;
}

Status RankWorker::LoadModelOver(const ModelSource& source, const RankWorkerOptions& options) {
  if (tensor_devices_ != nullptr) {
    ASSIGN_OR_RETURN(model_, LoadParted(source, *backend_));
    return OkStatus();
  }
  const RankWorkerOptions::Shared& others = options.shared;
  if (others.ranks == 1) {
    ASSIGN_OR_RETURN(model_, LoadModel(source, *backend_));
    return OkStatus();
  }
  SharedWeightsOptions shared;
  shared.addresses = others.addresses;
  shared.first_rank = others.first_rank;
  shared.part = {options.model_path, options.device,    options.isa,      options.weights,
                 options.threads,    options.cache_dir, {0, others.ranks}};
  shared.digest = weights_;
  shared.timeout = others.timeout;
  shared.on_change = others.on_change;
  ASSIGN_OR_RETURN(shared_, SharedWeights::Open(*backend_, shared));
  ASSIGN_OR_RETURN(model_, LoadModel(source, shared_->backend()));
  return OkStatus();
}

Status RankWorker::CallWeights() {
  return shared_ == nullptr || shared_->Look().ok() ? OkStatus() : shared_->CallAgain();
}

Status RankWorker::Follow(RankChannels channels) {
  {
    const std::lock_guard lock(mutex_);
    channels_ = std::move(channels);
  }
  backend_->Join(channels_.data());
  Status status;
  try {
    while (status.ok()) status = FollowNext();
  } catch (const std::exception& error) {  // out of memory: the root of this thread
    status = InternalError(std::string("a rank's work failed: ") + error.what());
  }
  channels_.Abort(status);
  documents_.clear();
  prefills_.clear();
  opened_.clear();
  const std::lock_guard lock(mutex_);
  channels_ = {};
  return status;
}

void RankWorker::Abort(const Status& why) {
  const std::lock_guard lock(mutex_);
  if (channels_.control != nullptr) channels_.Abort(why);
}

Status RankWorker::FollowNext() {
  RankHeader header;
  RETURN_IF_ERROR(control().Receive(0, std::as_writable_bytes(std::span(&header, 1)))->Wait());
  if (header.bytes > kRankMessageMax) {
    return InternalError("a message of " + std::to_string(header.bytes) + " bytes is no rank's");
  }
  std::string body(header.bytes, '\0');
  if (!body.empty()) {
    RETURN_IF_ERROR(control().Receive(0, std::as_writable_bytes(std::span(body)))->Wait());
  }
  return Do(header.verb, body);
}

Status RankWorker::Do(RankVerb verb, std::string_view body) {
  RankMessageReader message(body);
  if (verb == RankVerb::kForward || verb == RankVerb::kSegment) {
    RETURN_IF_ERROR(FaultPoint("rank.compute"));
  }
  switch (verb) {
    case RankVerb::kBeat:
      return Beat();
    case RankVerb::kCalibration:
      return TakeCalibration(message);
    case RankVerb::kOpen:
      return Open(message);
    case RankVerb::kFill:
      return Fill(message);
    case RankVerb::kLoad:
      return Load(message);
    case RankVerb::kFork:
      return Fork(message);
    case RankVerb::kClose:
      return Close(message);
    case RankVerb::kForward:
      return Forward(message);
    case RankVerb::kPrefill:
      return BeginPrefill(message);
    case RankVerb::kSegment:
      return Segment(message);
    case RankVerb::kDocuments:
      return BeginDocuments(message);
    case RankVerb::kWindows:
      return Windows(message);
    case RankVerb::kDrop:
      return Drop(message);
  }
  return InternalError("rank 0 said what is no verb");
}

Status RankWorker::Answer(const Status& status) {
  const RankReply reply = RankReply::Of(status);
  return Send(std::as_bytes(std::span(&reply, 1)));
}

Status RankWorker::Beat() {
  RankHoldings holdings = blocks_->holdings();
  const auto [used, capacity] = holder_->used_of_bytes();
  holdings.device_used_bytes = used;
  holdings.device_capacity_bytes = capacity;
  return Send(std::as_bytes(std::span(&holdings, 1)));
}

Status RankWorker::Drop(RankMessageReader& message) {
  const bool dry_run = message.Number() != 0;
  const auto digests = message.Array<Digest>();
  RETURN_IF_ERROR(message.Finish());
  const RankDropped dropped = blocks_->Drop(digests, dry_run);
  return Send(std::as_bytes(std::span(&dropped, 1)));
}

Status RankWorker::TakeCalibration(RankMessageReader& message) {
  const std::string digest = message.Text();
  const std::string bytes = message.Text();
  RETURN_IF_ERROR(message.Finish());
  if (calibrations_.contains(digest)) return OkStatus();
  ASSIGN_OR_RETURN(auto calibration,
                   KvCalibration::Parse(std::as_bytes(std::span(bytes.data(), bytes.size()))));
  RETURN_IF_ERROR(CheckCalibration(*calibration, model_->config()));
  calibrations_[digest] = std::move(calibration);
  return OkStatus();
}

Result<KvLayout> RankWorker::LayoutOf(const std::string& format, const std::string& calibration,
                                      std::span<const TokenId> first) {
  KvLayout layout;
  ASSIGN_OR_RETURN(layout.blocks, model_->Format(format));
  ASSIGN_OR_RETURN(layout.own, model_->Format("bf16"));
  layout.parts = model_->parts();
  RETURN_IF_ERROR(CheckLayout(layout, !calibration.empty(), first, model_->config()));
  if (calibration.empty()) return layout;
  const auto known = calibrations_.find(calibration);
  if (known == calibrations_.end()) return InternalError("rank 0 told of no calibration");
  layout.calibration = known->second.get();
  if (first.empty()) return layout;
  // Computed here: the same bits as at rank 0.
  Digest key;
  (void)Digest::FromHex(calibration, &key);
  key = ExtendChain(key, first);
  layout.sinks = sinks_.Find(key);
  if (layout.sinks != nullptr) return layout;
  ASSIGN_OR_RETURN(layout.sinks, ComputeSinks({*model_, *backend_, gate_}, first, layout,
                                              ComputePriority::kPrefill, {}));
  sinks_.Keep(key, layout.sinks);
  return layout;
}

Result<RankWorker::Opened*> RankWorker::Find(uint64_t id) {
  const auto found = opened_.find(id);
  if (found != opened_.end()) return &found->second;
  return InternalError("rank 0 named a sequence that is not open: " + std::to_string(id));
}

Status RankWorker::Open(RankMessageReader& message) {
  const uint64_t id = message.Number();
  const std::string format = message.Text();
  const std::string calibration = message.Text();
  const auto first = message.Array<TokenId>();
  RankPages::Text text;
  text.chain = message.Array<Digest>();
  text.tokens = message.Number();
  const bool all = message.Number() != 0;
  RETURN_IF_ERROR(message.Finish());
  RETURN_IF_ERROR(CheckText(text.chain.size(), text.tokens));
  if (opened_.size() >= kRankSequencesMax) return InternalError("too many sequences are open");
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOf(format, calibration, first));
  auto pages = std::make_shared<RankPages>(
      layout, std::move(text), backend_->attention().placement(), control().rank(), all);
  const auto refs = blocks_->Find(pages->FindHeld(*holder_));
  RETURN_IF_ERROR(Answer(refs.ok() ? pages->Put(*refs, *holder_) : refs.status()));
  const size_t wanted = pages->wanted().size();
  std::vector<std::byte> lacking(wanted);
  for (size_t i = 0; i < wanted; ++i) lacking[i] = std::byte{!pages->Has(i)};
  opened_[id].pages = std::move(pages);
  return lacking.empty() ? OkStatus() : Send(lacking);
}

BlockPlace RankWorker::PlaceOf(std::span<const Digest> chain, uint64_t block) const {
  return {chain.front(), block};
}

Status RankWorker::Fill(RankMessageReader& message) {
  ASSIGN_OR_RETURN(Opened* const opened, Find(message.Number()));
  const auto indices = message.Array<uint64_t>();
  RETURN_IF_ERROR(message.Finish());
  RankPages& pages = *opened->pages;
  Status kept;
  std::vector<RankPages::Given> given;
  for (const uint64_t index : indices) {
    if (index >= pages.wanted().size()) return InternalError("rank 0 sent a block too many");
    const WantedBlock& wanted = pages.wanted()[index];
    const KvLayout& layout = pages.layout();
    std::vector<std::byte> bytes(StoredBytes(layout.OfPart(layout.blocks, wanted.part)));
    RETURN_IF_ERROR(control().Receive(0, bytes)->Wait());
    if (!kept.ok()) continue;
    auto ref = blocks_->Keep({wanted.digest, pages.TokensOf(wanted.block),
                              PlaceOf(pages.text().chain, wanted.block), bytes});
    kept = ref.status();
    if (ref.ok()) given.push_back({index, *std::move(ref)});
  }
  if (kept.ok()) kept = pages.Put(given, *holder_);
  return Answer(kept);
}

Status RankWorker::Load(RankMessageReader& message) {
  ASSIGN_OR_RETURN(Opened* const opened, Find(message.Number()));
  const auto indices = message.Array<uint64_t>();
  const auto extents = message.Array<uint64_t>();
  const auto ordinals = message.Array<uint64_t>();
  RETURN_IF_ERROR(message.Finish());
  if (extents.size() != indices.size() || ordinals.size() != indices.size() || shelf_ == nullptr) {
    return InternalError("rank 0 named blocks without their places");
  }
  RankPages& pages = *opened->pages;
  std::vector<std::byte> loaded(indices.size());
  std::vector<RankPages::Given> given;
  Status kept;
  for (size_t i = 0; i < indices.size() && kept.ok(); ++i) {
    if (indices[i] >= pages.wanted().size()) return InternalError("rank 0 named a block too many");
    const WantedBlock& wanted = pages.wanted()[indices[i]];
    const KvFormat format = pages.layout().OfPart(pages.layout().blocks, wanted.part);
    const uint32_t tokens = pages.TokensOf(wanted.block);
    std::vector<std::byte> bytes(StoredBytes(format));
    const BlockLocation location{extents[i], static_cast<uint32_t>(ordinals[i])};
    if (!shelf_->Read(location, wanted.digest, tokens, StoredSections(format), bytes).ok()) {
      continue;
    }
    auto ref =
        blocks_->Keep({wanted.digest, tokens, PlaceOf(pages.text().chain, wanted.block), bytes});
    kept = ref.status();
    if (!ref.ok()) break;
    given.push_back({indices[i], *std::move(ref)});
    loaded[i] = std::byte{1};
  }
  if (kept.ok()) kept = pages.Put(given, *holder_);
  RETURN_IF_ERROR(Answer(kept));
  return Send(loaded);
}

Status RankWorker::Fork(RankMessageReader& message) {
  ASSIGN_OR_RETURN(Opened* const from, Find(message.Number()));
  const uint64_t to = message.Number();
  RETURN_IF_ERROR(message.Finish());
  if (opened_.size() >= kRankSequencesMax) return InternalError("too many sequences are open");
  Opened fork{from->pages, nullptr};
  if (from->kv != nullptr) {
    ASSIGN_OR_RETURN(fork.kv, from->kv->Fork(*backend_));
  }
  opened_[to] = std::move(fork);
  return OkStatus();
}

Status RankWorker::Close(RankMessageReader& message) {
  const uint64_t id = message.Number();
  RETURN_IF_ERROR(message.Finish());
  documents_.erase(id);
  if (const auto prefill = prefills_.find(id); prefill != prefills_.end()) {
    prefills_.erase(prefill);
  }
  opened_.erase(id);
  return OkStatus();
}

Status RankWorker::Forward(RankMessageReader& message) {
  const bool each = message.Number() != 0;
  const auto ids = message.Array<uint64_t>();
  const auto rows = message.Array<uint64_t>();
  const auto tokens = message.Array<TokenId>();
  RETURN_IF_ERROR(message.Finish());
  RETURN_IF_ERROR(CheckRows(each, ids, rows, tokens.size(), backend_->few_rows()));
  std::vector<SequenceRows> sequences;
  std::vector<KvSequence*> kvs;
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSIGN_OR_RETURN(Opened* const opened, Find(ids[i]));
    if (opened->kv == nullptr) {
      RETURN_IF_ERROR(CheckAtHand(*opened->pages));
      opened->kv = opened->pages->Sequence();
    }
    RETURN_IF_ERROR(CheckAlike(opened_[ids[0]].pages->layout(), opened->pages->layout()));
    sequences.push_back({opened->kv.get(), static_cast<uint32_t>(rows[i])});
    kvs.push_back(opened->kv.get());
  }
  if (scratch_ == nullptr || scratch_->rows() < tokens.size()) {
    scratch_.reset();
    ASSIGN_OR_RETURN(scratch_, ForwardScratch::Create(*backend_, model_->config(),
                                                      static_cast<uint32_t>(tokens.size())));
  }
  backend_->Begin({}, ReachOf(model_->config()));
  const auto go_on = [] { return true; };
  const Status status =
      each ? model_->ForwardEach(tokens, kvs, *scratch_, go_on)
           : model_->ForwardPacked(tokens, sequences, *scratch_, ForwardGoal::kHidden, go_on);
  backend_->End();
  return status;
}

}  // namespace corpusd
