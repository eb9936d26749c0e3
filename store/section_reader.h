// store/section_reader.h -- SectionReader: one section of many blocks after the other, read past
// the host tier into memory of its own, for who attends to more than fits into memory. Two slots:
// one is used while the other is filled. Holds no lease: what it reads is checked, and a block that
// has gone is an error. One thread; owned by the caller, whose store must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

class SectionReader {
 public:
  virtual ~SectionReader() = default;
  static constexpr uint32_t kSlots = 2;
  // How many blocks a slot takes.
  virtual size_t slot_blocks() const = 0;
  // Begins to read this section of blocks [first, first + count) of the chain. REQUIRES: count <=
  // slot_blocks(); what the slot was filled with before has arrived (Wait).
  virtual void Begin(uint32_t slot, size_t first, size_t count, uint32_t section) = 0;
  // kCorruption: a block is damaged, and now quarantined; kNotFound: it has gone.
  virtual Status Wait(uint32_t slot) = 0;
  // Block i of the slot: memory as large as its payload, 64-byte aligned, in which that section is.
  virtual const std::byte* block(uint32_t slot, size_t i) const = 0;
  // Of all sections that have been asked for.
  virtual uint64_t bytes() const = 0;
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
