#include "daemon/rpc/peer.h"

#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "client/wire/utf8.h"
#include "store/pin_ledger.h"

namespace corpusd {

namespace {

// The owner of pins made by those whom no kernel names.
constexpr const char* kNobody = "unknown";

// Those of the process when it connected; none if the kernel does not say.
std::vector<uint32_t> GroupsOf(int descriptor) {
  std::vector<gid_t> groups(64);
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const int failed = getsockopt(descriptor, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes);
    groups.resize(bytes / sizeof(gid_t));
    if (failed == 0) return {groups.begin(), groups.end()};
    if (errno != ERANGE) break;  // else it said how many there are
  }
  return {};
}

}  // namespace

Peer PeerOf(int descriptor) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return {};
  Peer peer;
  peer.known = true;
  peer.uid = credentials.uid;
  peer.gid = credentials.gid;
  peer.pid = credentials.pid;
  peer.admin = credentials.uid == 0 || credentials.uid == geteuid();
  peer.groups = GroupsOf(descriptor);
  return peer;
}

std::string PeerText(const Peer& peer) {
  if (!peer.known) return kNobody;
  return "uid:" + std::to_string(peer.uid) + ",gid:" + std::to_string(peer.gid) +
         ",pid:" + std::to_string(peer.pid);
}

std::string OwnerName(const Peer& peer) {
  if (!peer.owner.empty()) return peer.owner;
  if (!peer.known) return kNobody;
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer;
  if (getpwuid_r(peer.uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
    return ToUtf8(found->pw_name);
  }
  return "uid:" + std::to_string(peer.uid);
}

Status CheckMayImport(const Peer& peer) {
  if (peer.admin) return OkStatus();
  return Status(StatusCode::kPermissionDenied,
                "only root and the user that corpusd runs as may import: nothing can check a "
                "bundle's blocks against the model (you are " +
                    PeerText(peer) + ")");
}

Status CheckMayChangePin(const CorpusRecord& record, const Peer& peer, int64_t now_ms) {
  if (!PinHolds(record, now_ms) || peer.admin || record.pin->owner.empty()) return OkStatus();
  if (peer.known && OwnerName(peer) == record.pin->owner) return OkStatus();
  if (record.pin->owner == kNobody) return OkStatus();  // made over TCP: nobody could claim it
  const std::string why = record.pin->reason.empty() ? "" : " (" + record.pin->reason + ")";
  return Status(StatusCode::kPermissionDenied,
                "corpus '" + record.name + "' is pinned by " + record.pin->owner + why + ": only " +
                    record.pin->owner + " and root may change or end that pin");
}

}  // namespace corpusd
