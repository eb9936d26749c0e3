// engine/ranks/rank_message.h -- what rank 0 tells the others to do, as messages of a Transport: a
// header of 16 bytes, then numbers, texts and arrays behind each other in the byte order of the
// machines, which are alike. Ranks trust each other; a message that ends too early is still an
// error and nothing is read behind it. Values; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

enum class RankVerb : uint32_t {
  kBeat = 1,     // says that rank 0 is there; answered with what the rank holds
  kCalibration,  // coordinates of coded formats, by their digest
  kOpen,         // a sequence over blocks of a corpus; answered with those that are not at hand
  kFill,         // these blocks
  kLoad,         // these, from the rank's own disk
  kFork,         // a sequence that goes on where another is
  kClose,        // sequences that nobody needs any more
  kForward,      // rows that all ranks compute alike
  kPrefill,      // what follows an opened sequence is computed together
  kSegment,      // one segment of it; the blocks come back
  kDocuments,    // the text of a segmented corpus whose preamble is an opened sequence
  kWindows,      // some of its segments; the blocks come back
  kDrop,         // blocks leave the rank's memory; answered with how much that is
};

// A text of 16M tokens takes less.
inline constexpr uint64_t kRankMessageMax = uint64_t{256} << 20;

struct RankHeader {
  RankVerb verb = RankVerb::kBeat;
  uint32_t reserved = 0;
  uint64_t bytes = 0;  // of the message behind it
};
static_assert(sizeof(RankHeader) == 16);

// How a verb went, where something may be refused without ending the job; more may follow.
struct RankReply {
  uint32_t code = 0;
  std::array<char, 252> text{};

  static RankReply Of(const Status& status);
  Status status() const;
};
static_assert(sizeof(RankReply) == 256);

// What left a rank's memory, or would, in answer to kDrop.
struct RankDropped {
  uint64_t blocks = 0, bytes = 0;
};

// What a rank holds, in answer to kBeat.
struct RankHoldings {
  uint64_t blocks = 0, used_bytes = 0, capacity_bytes = 0;
  uint64_t device_used_bytes = 0, device_capacity_bytes = 0;  // copies of them on its device
};

class RankMessage {
 public:
  RankMessage& Number(uint64_t value) { return Append(&value, sizeof(value)); }
  RankMessage& Text(std::string_view text) {
    return Number(text.size()).Append(text.data(), text.size());
  }
  template <typename T>
  RankMessage& Array(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    return Number(values.size()).Append(values.data(), values.size_bytes());
  }
  std::string Take() { return std::move(bytes_); }

 private:
  RankMessage& Append(const void* data, size_t bytes) {
    bytes_.append(static_cast<const char*>(data), bytes);
    return *this;
  }
  std::string bytes_;
};

class RankMessageReader {
 public:
  explicit RankMessageReader(std::string_view bytes) : bytes_(bytes) {}
  uint64_t Number() {
    uint64_t value = 0;
    Copy(&value, sizeof(value));
    return value;
  }
  std::string Text() {
    const std::string_view text = Piece(Number());
    return std::string(text);
  }
  template <typename T>
  std::vector<T> Array() {
    static_assert(std::is_trivially_copyable_v<T>);
    const uint64_t count = Number();
    const std::string_view piece = Piece(count > bytes_.size() ? UINT64_MAX : count * sizeof(T));
    std::vector<T> values(piece.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), piece.data(), piece.size());
    return values;
  }
  // kInternal if the message was not what was read from it.
  Status Finish() const {
    if (whole_ && bytes_.empty()) return OkStatus();
    return InternalError("a message of rank 0 has another form than expected");
  }

 private:
  std::string_view Piece(uint64_t bytes) {
    whole_ = whole_ && bytes <= bytes_.size();
    const std::string_view piece = bytes_.substr(0, whole_ ? bytes : 0);
    bytes_.remove_prefix(piece.size());
    return piece;
  }
  void Copy(void* to, size_t bytes) {
    const std::string_view piece = Piece(bytes);
    if (!piece.empty()) std::memcpy(to, piece.data(), piece.size());
  }

  std::string_view bytes_;
  bool whole_ = true;
};

}  // namespace corpusd
