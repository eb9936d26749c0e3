// store/section_reader.h -- SectionReader: one section of many blocks after the other, read past
// the host tier into memory of its own, for who attends to more than fits into memory. Two slots:
// one is used while the other is filled. Holds no lease: what it reads is checked, and a block that
// has gone is an error. It may grow at its end, as a prefill publishes. One thread; owned by the
// caller, whose store must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

// What a reader has done so far.
struct SectionReads {
  uint64_t bytes = 0;    // of all sections that have been asked for
  uint64_t entries = 0;  // looked up in the catalogue
  // From Begin until a slot was full, all slots; and how much of that the caller waited.
  double read_seconds = 0, waited_seconds = 0;
};

class SectionReader {
 public:
  virtual ~SectionReader() = default;
  static constexpr uint32_t kSlots = 2;
  // How many it reads; and more of them, behind the last. Errors as of ReadInTurn, after which it
  // is as before. REQUIRES: no slot is being filled.
  virtual size_t blocks() const = 0;
  virtual Status Append(std::span<const Digest> chain) = 0;
  // How many blocks a slot takes.
  virtual size_t slot_blocks() const = 0;
  // Begins to read this section of blocks [first, first + count) of the chain. REQUIRES: count <=
  // slot_blocks(); what the slot was filled with before has arrived (Wait).
  virtual void Begin(uint32_t slot, size_t first, size_t count, uint32_t section) = 0;
  // kCorruption: a block is damaged, and now quarantined; kNotFound: it has gone.
  virtual Status Wait(uint32_t slot) = 0;
  // Block i of the slot: memory as large as its payload, 64-byte aligned, in which that section is.
  virtual const std::byte* block(uint32_t slot, size_t i) const = 0;
  virtual SectionReads reads() const = 0;
};

// A store that can be read so.
class SectionSource {
 public:
  virtual ~SectionSource() = default;
  // kNotFound, kCorruption: one of the blocks cannot be read; kInvalidArgument: they differ in
  // size, or there are none.
  virtual Result<std::unique_ptr<SectionReader>> ReadInTurn(std::span<const Digest> chain) = 0;
};

class BlockStore;
// Of a store on disk; null of others.
SectionSource* SectionSourceOf(BlockStore* store);

}  // namespace corpusd
