#include "engine/ranks/rank_shelf.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/ranks/placement.h"
#include "engine/ranks/shelf_message.h"
#include "kernels/kv_format.h"
#include "store/base/crc32c.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

// A look at whether all should stop.
constexpr std::chrono::milliseconds kLook{200};
// For what follows a message's first bytes.
constexpr std::chrono::milliseconds kMessageTimeout{60'000};
// Of one block: header and padding.
constexpr uint64_t kBlockOverheadBytes = 8192;
// Of one extent.
constexpr size_t kBlocksMax = 1 << 16;
constexpr uint64_t kTokensMax = 1 << 16;  // of a block

Deadline After(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

// How an extent is told of, behind the reply.
std::string TextOf(const BlockExtent& extent) {
  std::vector<uint64_t> ordinals;
  for (const BlockLocation& location : extent.locations) ordinals.push_back(location.ordinal);
  return RankMessage()
      .Number(extent.number)
      .Number(extent.bytes)
      .Array(std::span<const uint64_t>(ordinals))
      .Take();
}

Result<BlockExtent> ExtentOf(std::string_view body, size_t blocks) {
  RankMessageReader message(body);
  BlockExtent extent;
  extent.number = message.Number();
  extent.bytes = message.Number();
  const auto ordinals = message.Array<uint64_t>();
  RETURN_IF_ERROR(message.Finish());
  if (ordinals.size() != blocks) return InternalError("an extent without its blocks");
  for (const uint64_t ordinal : ordinals) {
    extent.locations.push_back({extent.number, static_cast<uint32_t>(ordinal)});
  }
  return extent;
}

bool IsPayload(uint64_t bytes, uint64_t sections) {
  return sections > 0 && sections <= kMaxSections && bytes > 0 && bytes <= kMaxPayloadBytes &&
         bytes % sections == 0;
}

}  // namespace

Result<std::unique_ptr<RankShelf>> RankShelf::Open(const std::string& data_dir,
                                                   uint64_t disk_bytes) {
  std::error_code error;
  std::filesystem::create_directories(data_dir, error);
  if (error) return IoError("cannot create the data folder " + data_dir + ": " + error.message());
  ASSIGN_OR_RETURN(auto lock, FolderLock::Acquire(data_dir));
  if (std::filesystem::exists(data_dir + "/catalog", error)) {
    return FailedPreconditionError("the data folder " + data_dir +
                                   " is a daemon's own: give a rank another");
  }
  return std::unique_ptr<RankShelf>(new RankShelf(data_dir, disk_bytes, std::move(lock)));
}

Status RankShelf::CheckOwner(const std::string& store_id) const {
  const std::string path = data_dir_ + "/shelf-of";
  std::ifstream file(path);
  std::ostringstream owner;
  owner << file.rdbuf();
  if (file && owner.str() == store_id) return OkStatus();
  if (file) {
    return FailedPreconditionError("the data folder " + data_dir_ +
                                   " holds blocks of another daemon's data folder");
  }
  std::ofstream out(path, std::ios::trunc);
  out << store_id;
  out.close();
  return out ? OkStatus() : IoError("cannot write '" + path + "'");
}

Status RankShelf::Attach(RankMessageReader& message) {
  const std::string store_id = message.Text();
  const auto extents = message.Array<uint64_t>();
  const auto bytes = message.Array<uint64_t>();
  RETURN_IF_ERROR(message.Finish());
  if (bytes.size() != extents.size()) return InternalError("extents without their bytes");
  RETURN_IF_ERROR(CheckOwner(store_id));
  std::map<uint64_t, uint64_t> named;
  for (size_t i = 0; i < extents.size(); ++i) named[extents[i]] = bytes[i];
  const std::unique_lock lock(mutex_);
  payload_ = nullptr;
  ASSIGN_OR_RETURN(payload_, PayloadStore::Open(data_dir_, named));
  return OkStatus();
}

Status RankShelf::ServeRead(const Socket& socket, RankMessageReader& message) {
  BlockLocation location;
  location.extent = message.Number();
  location.ordinal = static_cast<uint32_t>(message.Number());
  const auto digest = message.Array<Digest>();
  const auto tokens = static_cast<uint32_t>(message.Number());
  const auto sections = static_cast<uint32_t>(message.Number());
  SectionRange range;
  range.first = static_cast<uint32_t>(message.Number());
  range.end = static_cast<uint32_t>(message.Number());
  const uint64_t bytes = message.Number();
  RETURN_IF_ERROR(message.Finish());
  const bool sound = digest.size() == 1 && sections > 0 && bytes <= kMaxPayloadBytes &&
                     bytes % sections == 0 && range.first <= range.end && range.end <= sections;
  if (!sound) return InternalError("rank 0 asked for what is no block");
  std::vector<std::byte> payload(bytes);
  const Status read =
      payload_->ReadSections(location, digest.front(), tokens, sections, range, payload);
  RETURN_IF_ERROR(SendReply(socket, read));
  if (!read.ok()) return OkStatus();
  const uint64_t each = bytes / sections;
  const auto part = std::span<const std::byte>(payload).subspan(range.first * each,
                                                                (range.end - range.first) * each);
  const uint32_t crc = Crc32c(part);
  RETURN_IF_ERROR(SendBytes(socket, std::as_bytes(std::span(&crc, 1)), After(kMessageTimeout)));
  return SendBytes(socket, part, After(kMessageTimeout));
}

Status RankShelf::ServeWrite(const Socket& socket, RankMessageReader& message) {
  const auto digests = message.Array<Digest>();
  const auto tokens = message.Array<uint64_t>();
  const auto sections = message.Array<uint64_t>();
  const auto bytes = message.Array<uint64_t>();
  RETURN_IF_ERROR(message.Finish());
  const size_t count = digests.size();
  bool sound = count > 0 && count <= kBlocksMax && tokens.size() == count &&
               sections.size() == count && bytes.size() == count;
  uint64_t all = 0;
  for (size_t i = 0; i < count && sound; ++i) {
    sound = IsPayload(bytes[i], sections[i]) && tokens[i] > 0 && tokens[i] <= kTokensMax;
    all += bytes[i];
  }
  if (!sound || (count > 1 && all > kShelfWriteBytes)) {
    return InternalError("rank 0 sent what are no blocks");
  }
  std::vector<BlockWrite> writes(count);
  std::vector<const BlockWrite*> blocks;
  std::vector<std::byte> payload(all);
  RETURN_IF_ERROR(ReceiveBytes(socket, payload, After(kMessageTimeout)));
  uint64_t first = 0;
  for (size_t i = 0; i < count; ++i) {
    writes[i].digest = digests[i];
    writes[i].tokens.resize(tokens[i]);  // how many: their ids are rank 0's
    writes[i].payload = std::span<const std::byte>(payload).subspan(first, bytes[i]);
    writes[i].sections = static_cast<uint32_t>(sections[i]);
    first += bytes[i];
    blocks.push_back(&writes[i]);
  }
  const auto extent = Write(blocks);
  RETURN_IF_ERROR(SendReply(socket, extent.status()));
  return extent.ok() ? SendMessage(socket, TextOf(*extent), After(kMessageTimeout)) : OkStatus();
}

Status RankShelf::ServeCopy(const Socket& socket, RankMessageReader& message) {
  const auto blocks = message.Array<StoredBlock>();
  RETURN_IF_ERROR(message.Finish());
  uint64_t needed = 0;
  bool sound = !blocks.empty() && blocks.size() <= kBlocksMax;
  for (const StoredBlock& block : blocks) {
    sound = sound && IsPayload(block.payload_bytes, block.sections);
    needed += block.payload_bytes + kBlockOverheadBytes;
  }
  if (!sound) return InternalError("rank 0 named what are no blocks");
  Result<BlockExtent> extent = InternalError("not copied");
  {
    const std::lock_guard one(write_mutex_);
    const Status room = CheckRoom(needed);
    extent = room.ok() ? payload_->CopyToNewExtent(blocks) : room;
  }
  RETURN_IF_ERROR(SendReply(socket, extent.status()));
  return extent.ok() ? SendMessage(socket, TextOf(*extent), After(kMessageTimeout)) : OkStatus();
}

Status RankShelf::ServeOne(const Socket& socket, std::string_view body) {
  RankMessageReader message(body);
  const auto verb = static_cast<ShelfVerb>(message.Number());
  if (verb == ShelfVerb::kAttach) {
    const Status attached = Attach(message);
    RETURN_IF_ERROR(SendReply(socket, attached));
    return attached;
  }
  // Attached and detached by this thread alone.
  if (payload_ == nullptr) return InternalError("rank 0 asked a shelf that it has not attached");
  switch (verb) {
    case ShelfVerb::kRead:
      return ServeRead(socket, message);
    case ShelfVerb::kDrop:
      return payload_->DropExtents(message.Array<uint64_t>());
    case ShelfVerb::kWrite:
      return ServeWrite(socket, message);
    case ShelfVerb::kCopy:
      return ServeCopy(socket, message);
    case ShelfVerb::kUsage: {
      const ShelfUsage usage{payload_->PhysicalBytes(), disk_bytes_};
      RETURN_IF_ERROR(SendReply(socket, OkStatus()));
      return SendBytes(socket, std::as_bytes(std::span(&usage, 1)), After(kMessageTimeout));
    }
    case ShelfVerb::kAttach:
      break;
  }
  return InternalError("rank 0 asked a shelf what it does not know");
}

Status RankShelf::Serve(const Socket& socket, const std::function<bool()>& stopped) {
  Status status;
  while (status.ok() && !stopped()) {
    if (!AwaitBytes(socket, After(kLook))) continue;
    auto body = ReceiveMessage(socket, After(kMessageTimeout));
    status = body.ok() ? ServeOne(socket, *body) : body.status();
  }
  // Nobody says what may be dropped any more; what is written now would be swept away.
  const std::unique_lock lock(mutex_);
  payload_ = nullptr;
  return status;
}

Status RankShelf::CheckRoom(uint64_t needed_bytes) const {
  const uint64_t used = payload_->PhysicalBytes();
  if (needed_bytes <= disk_bytes_ - std::min(used, disk_bytes_)) return OkStatus();
  return ResourceExhaustedError("its disk tier is full: " + FormatBytes(used) + " of " +
                                FormatBytes(disk_bytes_) + " are used, " +
                                FormatBytes(needed_bytes) +
                                " more are needed: raise its --disk-bytes or remove a corpus");
}

Result<BlockExtent> RankShelf::Write(std::span<const BlockWrite* const> blocks) {
  const std::shared_lock lock(mutex_);
  if (payload_ == nullptr) return UnavailableError("rank 0 has not attached this rank's disk");
  uint64_t needed = 0;
  for (const BlockWrite* block : blocks) needed += block->payload.size() + kBlockOverheadBytes;
  const std::lock_guard one(write_mutex_);
  RETURN_IF_ERROR(CheckRoom(needed));
  return payload_->WriteExtent(blocks);
}

Status RankShelf::Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                       uint32_t sections, std::span<std::byte> payload) const {
  const std::shared_lock lock(mutex_);
  if (payload_ == nullptr) return UnavailableError("rank 0 has not attached this rank's disk");
  return payload_->Read(location, digest, tokens, sections, payload);
}

uint32_t KeeperOf(const CorpusRecord& record, uint64_t position, uint32_t text_ranks,
                  uint32_t stride) {
  KvFormat format;
  const bool known = ParseKvFormatName(record.kv_format, &format.key_codec, &format.value_codec);
  // Exact first tokens are a page before the others.
  const uint64_t page = position + (known && IsCoded(format) ? 1 : 0);
  return Placement{text_ranks}.RankOfPage(page) * stride;
}

// Rank 0's end of one.
class RankShelves::Remote final : public BlockShelf {
 public:
  // on_lost: told by whoever finds out, again by whoever asks later.
  Remote(Socket socket, uint32_t rank, std::chrono::milliseconds timeout,
         std::function<void(const Remote*)> on_lost)
      : socket_(std::move(socket)),
        name_("rank " + std::to_string(rank)),
        timeout_(timeout),
        on_lost_(std::move(on_lost)) {}

  Status Attach(const std::string& store_id, const std::map<uint64_t, uint64_t>& named) {
    std::vector<uint64_t> extents, bytes;
    for (const auto& [extent, size] : named) {
      extents.push_back(extent);
      bytes.push_back(size);
    }
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(AskLocked(ShelfMessage(ShelfVerb::kAttach)
                                  .Text(store_id)
                                  .Array(std::span<const uint64_t>(extents))
                                  .Array(std::span<const uint64_t>(bytes))
                                  .Take()));
    return OkStatus();
  }

  Status ReadSections(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                      uint32_t sections, SectionRange range,
                      std::span<std::byte> payload) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(AskLocked(ShelfMessage(ShelfVerb::kRead)
                                  .Number(location.extent)
                                  .Number(location.ordinal)
                                  .Array(std::span(&digest, 1))
                                  .Number(tokens)
                                  .Number(sections)
                                  .Number(range.first)
                                  .Number(range.end)
                                  .Number(payload.size())
                                  .Take()));
    const uint64_t each = payload.size() / sections;
    const auto part = payload.subspan(range.first * each, (range.end - range.first) * each);
    uint32_t crc = 0;
    RETURN_IF_ERROR(ReceiveLocked(std::as_writable_bytes(std::span(&crc, 1))));
    RETURN_IF_ERROR(ReceiveLocked(part));
    if (Crc32c(part) == crc) return OkStatus();
    return LostLocked(UnavailableError("its bytes came damaged"));
  }

  void Drop(std::span<const uint64_t> extents) override {
    const std::lock_guard lock(drop_mutex_);
    drops_.insert(drops_.end(), extents.begin(), extents.end());
  }

  Result<BlockExtent> Write(std::span<const BlockWrite* const> blocks) override {
    std::vector<Digest> digests;
    std::vector<uint64_t> tokens, sections, bytes;
    std::vector<std::span<const std::byte>> payloads;
    for (const BlockWrite* block : blocks) {
      digests.push_back(block->digest);
      tokens.push_back(block->tokens.size());
      sections.push_back(block->sections);
      bytes.push_back(block->payload.size());
      payloads.push_back(block->payload);
    }
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(AskLocked(ShelfMessage(ShelfVerb::kWrite)
                                  .Array(std::span<const Digest>(digests))
                                  .Array(std::span<const uint64_t>(tokens))
                                  .Array(std::span<const uint64_t>(sections))
                                  .Array(std::span<const uint64_t>(bytes))
                                  .Take(),
                              payloads));
    return ReceiveExtentLocked(blocks.size());
  }

  Result<BlockExtent> Copy(std::span<const StoredBlock> blocks) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(AskLocked(ShelfMessage(ShelfVerb::kCopy).Array(blocks).Take()));
    return ReceiveExtentLocked(blocks.size());
  }

  Result<ShelfUsage> Usage() override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(AskLocked(ShelfMessage(ShelfVerb::kUsage).Take()));
    ShelfUsage usage;
    RETURN_IF_ERROR(ReceiveLocked(std::as_writable_bytes(std::span(&usage, 1))));
    return usage;
  }

 private:
  // Sends what is to be dropped, the message and what follows it, and receives how it went.
  Status AskLocked(const std::string& body,
                   std::span<const std::span<const std::byte>> payloads = {}) {
    std::vector<uint64_t> drops;
    {
      const std::lock_guard lock(drop_mutex_);
      drops.swap(drops_);
    }
    if (!socket_.open()) {
      on_lost_(this);  // it may have been lost before it was anybody's shelf
      return UnavailableError(name_ + " is not there: start it");
    }
    Status sent;
    if (!drops.empty()) {
      sent = SendMessage(
          socket_, ShelfMessage(ShelfVerb::kDrop).Array(std::span<const uint64_t>(drops)).Take(),
          After(timeout_));
    }
    if (sent.ok()) sent = SendMessage(socket_, body, After(timeout_));
    for (const auto payload : payloads) {
      if (sent.ok()) sent = SendBytes(socket_, payload, After(timeout_));
    }
    if (!sent.ok()) return LostLocked(sent);
    RankReply reply;
    RETURN_IF_ERROR(ReceiveLocked(std::as_writable_bytes(std::span(&reply, 1))));
    return reply.status().WithContext(name_);
  }
  Result<BlockExtent> ReceiveExtentLocked(size_t blocks) {
    const auto body = ReceiveMessage(socket_, After(timeout_));
    if (!body.ok()) return LostLocked(body.status());
    auto extent = ExtentOf(*body, blocks);
    return extent.ok() ? extent : LostLocked(extent.status());
  }
  Status ReceiveLocked(std::span<std::byte> bytes) {
    const Status received = ReceiveBytes(socket_, bytes, After(timeout_));
    return received.ok() ? received : LostLocked(received);
  }
  Status LostLocked(const Status& why) {
    socket_.Close();
    on_lost_(this);
    return UnavailableError(name_ + " was lost: " + why.message());
  }

  std::mutex mutex_;  // one question at a time
  Socket socket_;
  const std::string name_;
  const std::chrono::milliseconds timeout_;
  const std::function<void(const Remote*)> on_lost_;
  std::mutex drop_mutex_;
  std::vector<uint64_t> drops_;
};

RankShelves::~RankShelves() {
  for (const auto& [rank, held] : shelves_) store_.DetachShelf(rank);
}

Status RankShelves::Attach(uint32_t rank, Socket socket) {
  const auto shelf = std::make_shared<Remote>(
      std::move(socket), rank, timeout_, [this, rank](const Remote* lost) { Forget(rank, lost); });
  ASSIGN_OR_RETURN(
      const uint64_t epoch,
      store_.AttachShelf(rank, [&](const auto& named) -> Result<std::shared_ptr<BlockShelf>> {
        RETURN_IF_ERROR(shelf->Attach(store_id_, named));
        return std::shared_ptr<BlockShelf>(shelf);
      }));
  const std::lock_guard lock(mutex_);
  shelves_[rank] = {shelf, epoch};
  return OkStatus();
}

std::optional<uint64_t> RankShelves::Epoch(uint32_t rank) const {
  const std::lock_guard lock(mutex_);
  const auto found = shelves_.find(rank);
  return found == shelves_.end() ? std::nullopt : std::optional(found->second.epoch);
}

std::optional<ShelfUsage> RankShelves::Usage(uint32_t rank) {
  Held held;
  {
    const std::lock_guard lock(mutex_);
    const auto found = shelves_.find(rank);
    if (found == shelves_.end()) return std::nullopt;
    held = found->second;
  }
  const auto usage = held.shelf->Usage();
  return usage.ok() ? std::optional(*usage) : std::nullopt;
}

void RankShelves::Forget(uint32_t rank, const Remote* lost) {
  const std::lock_guard lock(mutex_);
  const auto found = shelves_.find(rank);
  if (found == shelves_.end() || found->second.shelf.get() != lost) return;
  shelves_.erase(found);
  store_.DetachShelf(rank);
}

}  // namespace corpusd
