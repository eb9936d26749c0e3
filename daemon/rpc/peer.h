// daemon/rpc/peer.h -- Peer: who is at the other end of a connection, as the kernel vouches for it
// (SO_PEERCRED), never as the client says. Decides who may change whose pin. Values; any thread,
// but OwnerName may wait for a directory service: not on the I/O thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/status.h"
#include "store/corpus_record.h"

namespace corpusd {

struct Peer {
  bool known = false;  // the kernel could not say: then it owns nothing and may change nothing
  uint32_t uid = 0, gid = 0;
  int32_t pid = 0;
  // root, and the user that the daemon runs as, may do what any owner may.
  bool admin = false;
  std::vector<uint32_t> groups = {};  // beside gid
  std::string owner = {};             // to whom pins are charged; "": the user
};

// The peer of a connected Unix socket.
Peer PeerOf(int descriptor);
// "uid:1000,gid:1000,pid:812", for logs.
std::string PeerText(const Peer& peer);
// The user's name, or "uid:1000" if the machine has none for it.
std::string OwnerName(const Peer& peer);

// kPermissionDenied but for admins: what a bundle's blocks say cannot be checked against the model,
// so whoever may import may make it answer as he likes.
Status CheckMayImport(const Peer& peer);

// kPermissionDenied if the corpus has a pin that holds at this time and is another user's.
Status CheckMayChangePin(const CorpusRecord& record, const Peer& peer, int64_t now_ms);

}  // namespace corpusd
