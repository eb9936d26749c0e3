// store/bundle_writer.h -- BundleWriter: gives out a bundle record by record, so that a corpus of
// any size takes the memory of one block. Pulled by its user; asks for each block when it is due.
// One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/sha256.h"
#include "store/block_store.h"
#include "store/bundle_format.h"

namespace corpusd {

class BundleWriter {
 public:
  // Puts the payload of one block, or of a part of it, into *payload. part: null, or a part of that
  // block.
  using ReadBlock = std::function<Status(uint64_t index, const CorpusPart* part,
                                         std::vector<std::byte>* payload)>;
  // REQUIRES: head describes tokens (tokens.size() == head.tokens) and every block.
  BundleWriter(BundleHead head, std::vector<TokenId> tokens, ReadBlock read_block);

  // Appends the next record. RETURNS false, with *out as it was, once all are out. After an error
  // of read_block the same record may be asked for again.
  Result<bool> Next(std::string* out);
  const BundleHead& head() const { return head_; }
  uint64_t blocks() const { return next_block_; }  // given out
  uint64_t bytes() const { return bytes_; }        // given out
  // Hex SHA-256 that the end record carries: of every byte before it. Empty before that.
  const std::string& sha256() const { return sha256_; }

 private:
  void Emit(BundleRecordKind kind, std::string_view content, bool compress, std::string* out);
  void EmitEnd(std::string* out);
  Status EmitBlock(std::string* out);
  // The next one that belongs to a block which is out; null: none.
  const HeldPart* NextPart() const;

  const BundleHead head_;
  const std::vector<TokenId> tokens_;
  const CorpusChain layout_;
  const std::vector<Digest> chain_;  // without tenant
  const std::vector<HeldPart> parts_;
  const ReadBlock read_block_;
  Sha256 hash_;
  std::string sha256_;
  bool head_out_ = false;
  size_t next_token_ = 0;
  uint64_t next_block_ = 0;
  size_t next_part_ = 0;
  uint64_t bytes_ = 0;
  bool compress_blocks_ = true;  // until one does not shrink enough
};

// A writer over a ready corpus of the store, which must outlive it. block_tokens: of the model.
// model_name: for people. kNotReady if the corpus is not complete.
Result<std::unique_ptr<BundleWriter>> OpenExport(BlockStore& store, std::string_view name,
                                                 std::string_view model_name,
                                                 uint32_t block_tokens);

}  // namespace corpusd
