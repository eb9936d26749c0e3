// store/bundle_import.h -- BundleImporter: makes a corpus of a bundle's bytes as they come, in the
// memory of a few blocks. Blocks are stored under digests computed here, from the token ids and
// this daemon's own root, so a bundle cannot put bytes under a digest of its choice. Until the last
// byte is checked the corpus is "cancelled" and cannot be asked. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/block_store.h"
#include "store/bundle_reader.h"
#include "store/corpus_shape.h"

namespace corpusd {

class BundleImporter : private BundleSink {
 public:
  // What the model at hand serves in the bundle's format, by its rule of segments;
  // kInvalidArgument if it does not know them.
  using ShapeOf = std::function<Result<CorpusShape>(const BundleHead& head)>;
  // Called with the corpus's name before anything is stored; an error refuses the bundle.
  using CheckName = std::function<Status(const std::string& name)>;

  // name: of the corpus to make; "": the bundle's own.
  BundleImporter(BlockStore& store, ShapeOf shape_of, CheckName check_name, std::string name);

  // kInvalidArgument: the bundle is for another model, format or version, field by field.
  // kAlreadyExists: another corpus has the name. kCorruption: the bundle is damaged; the whole
  // blocks before the damage stay, and a later import of a good copy goes on from them. A bundle
  // whose SHA-256 differs leaves nothing.
  Status Feed(std::span<const std::byte> bytes);
  // The bytes have ended. RETURNS the corpus, ready.
  Result<CorpusRecord> Finish();
  // The bytes have stopped coming: stores the whole blocks at hand, for a later import.
  void Abandon();

  const std::string& name() const { return name_; }
  uint64_t blocks_done() const { return blocks_done_; }
  uint64_t blocks_total() const { return head_.blocks; }  // 0: not known yet
  // Blocks that an earlier import had left, or that another corpus has.
  uint64_t blocks_reused() const { return first_blocks_; }

 private:
  Status OnHead(const BundleHead& head) override;
  Status OnTokens(std::vector<TokenId> tokens) override;
  Status OnBlock(uint64_t index, const BlockHeader& header,
                 std::span<const std::byte> payload) override;
  Status OnPart(uint64_t index, uint32_t part, const BlockHeader& header,
                std::span<const std::byte> payload) override;
  Status OnEnd() override;

  Status CheckFits(const BundleHead& head) const;
  // The unfinished corpus to go on with, or none if the name is free.
  Result<std::optional<CorpusRecord>> FindUnfinished() const;
  Result<CorpusRecord> Create();
  Status Flush();
  // Applies the change to the stored record, again if somebody else changed it meanwhile.
  Status Update(const std::function<void(CorpusRecord&)>& change);
  void DropWhatCame();
  // Whether all parts of this block, one that waits, have come.
  bool HasItsParts(uint64_t index) const;

  BlockStore& store_;
  const ShapeOf shape_of_;
  const CheckName check_name_;
  std::string name_;
  BundleReader reader_;
  BundleHead head_;
  CorpusShape shape_;
  std::vector<TokenId> tokens_;
  std::optional<CorpusChain> layout_;  // once the tokens are here
  std::vector<Digest> chain_;          // under the root of shape_
  CorpusRecord record_;
  bool created_ = false;  // by this import
  bool opened_ = false;   // record_ is stored
  uint64_t first_blocks_ = 0;
  uint64_t blocks_done_ = 0;
  // Payloads of the next blocks of record_.chain, and of their parts, by index in the record's.
  struct WaitingBlock {
    std::vector<std::byte> payload;
    std::vector<std::vector<std::byte>> parts;
  };
  std::vector<WaitingBlock> waiting_;
  uint64_t waiting_bytes_ = 0;
};

}  // namespace corpusd
