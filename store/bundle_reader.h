// store/bundle_reader.h -- BundleReader: takes the bytes of a bundle as they come, checks every one
// of them, and hands whole parts to a sink. Holds one record at most; allocates for a record only
// after its lengths were compared with what they can be. Any bytes are an input: an error, never
// a crash. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/base/sha256.h"
#include "store/block_header.h"
#include "store/bundle_format.h"

namespace corpusd {

// Gets the parts in order; an error ends the reading with it.
class BundleSink {
 public:
  virtual ~BundleSink() = default;
  virtual Status OnHead(const BundleHead& head) = 0;
  // All token ids. The chain of the bundle follows from them and from the head's root.
  virtual Status OnTokens(std::vector<TokenId> tokens) = 0;
  // Header and payload of block `index`: of the digest that its tokens give, undamaged.
  virtual Status OnBlock(uint64_t index, const BlockHeader& header,
                         std::span<const std::byte> payload) = 0;
  // The same of a part of block `index`, which came before; part: index in the head's parts.
  virtual Status OnPart(uint64_t /*index*/, uint32_t /*part*/, const BlockHeader& /*header*/,
                        std::span<const std::byte> /*payload*/) {
    return OkStatus();
  }
  // The SHA-256 over everything is right.
  virtual Status OnEnd() = 0;
};

class BundleReader {
 public:
  explicit BundleReader(BundleSink& sink) : sink_(sink) {}

  // kCorruption: no bundle or a damaged one, with the place; else what the sink said. Nothing may
  // be fed after an error.
  Status Feed(std::span<const std::byte> bytes);
  // kCorruption unless the end was reached.
  Status Finish() const;
  bool complete() const { return state_ == State::kComplete; }
  // All checksums were right but not the SHA-256 over everything: somebody changed the file.
  bool forged() const { return forged_; }
  uint64_t bytes() const { return bytes_; }

 private:
  enum class State : uint8_t { kPrelude, kHeader, kBody, kComplete };

  Status Take();  // buffer_ holds what state_ waited for
  Status TakeHeader();
  Status TakeBody();
  Status TakeHead(std::string_view content);
  Status TakeTokens(std::span<const std::byte> content);
  Status TakeBlock(std::span<const std::byte> content);
  Status TakeEnd(std::span<const std::byte> content);
  // The part that must come next; null: a block.
  const HeldPart* NextPart() const;
  // The kind that must come next.
  BundleRecordKind Expected() const;
  // Most bytes that a body of this record may have once decoded, and the least.
  uint64_t ContentBytesMax() const;
  Status At(const Status& status) const;

  BundleSink& sink_;
  State state_ = State::kPrelude;
  size_t wanted_bytes_ = kBundlePreludeBytes;
  std::string buffer_;
  BundleRecord record_;
  uint64_t bytes_ = 0;
  bool has_head_ = false;
  BundleHead head_;
  std::vector<TokenId> tokens_;
  std::optional<CorpusChain> layout_;  // once all tokens are here
  std::vector<Digest> chain_;
  std::vector<HeldPart> parts_;
  uint64_t next_block_ = 0;
  size_t next_part_ = 0;
  bool forged_ = false;
  Sha256 hash_;
};

}  // namespace corpusd
