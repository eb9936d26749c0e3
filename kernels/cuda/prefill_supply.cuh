// kernels/cuda/prefill_supply.cuh -- how the tiles of prefill_attention.cu come into shared memory:
// what a block has there, and the warp that finds the block's stacks of rows, asks for what they
// see of the pages and says so in messages.
#pragma once

#include "kernels/cuda/prefill_state.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"

namespace corpusd::cuda {

constexpr int kPrefillGroups = 2, kPrefillGroupRows = 64;
static_assert(kPrefillGroups * kPrefillGroupRows == kPrefillStackRows);
constexpr int kPrefillChunkBytes = kTileTokens * 128;  // 64 dims of a tile
constexpr int kPrefillQueryBytes = kPrefillGroupRows * 128;

// kTileEnd: of the first of two tiles of a stack.
enum class PrefillWhat : int32_t { kStack, kPage, kSpanEnd, kTileEnd, kStackEnd, kDone };

// What the ring of keys says beside its tiles.
struct alignas(16) PrefillMessage {
  PrefillWhat what;
  union {
    struct {
      uint32_t tile, kv_head, first, part;
    } stack;
    // Row r of the tile sees slots [max(hidden, delta + r - window), min(tokens, delta + r)).
    struct {
      int32_t hidden, tokens, delta;
      int32_t whole;  // all rows see all slots
    } page;
  };
};

template <int Dim>
struct PrefillShared {
  static constexpr int kStages = Dim == 64 ? 4 : 2, kTileBytes = Dim / 64 * kPrefillChunkBytes;
  uint8_t queries[kPrefillGroups][Dim / 64 * kPrefillQueryBytes];
  uint8_t keys[kStages][kTileBytes];
  uint8_t values[kStages][kTileBytes];
  PrefillMessage messages[kStages];
  uint64_t keys_full[kStages], keys_empty[kStages];
  uint64_t values_full[kStages], values_empty[kStages];
};

// A place in a ring of shared memory.
template <int Stages>
struct RingPlace {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

// The stacks of all tiles in order, found by one warp, 32 tiles at a time.
class PrefillCursor {
 public:
  __device__ __forceinline__ PrefillCursor(const PrefillAttention& call, int lane)
      : call_(call), lane_(lane) {
    Load();
    while (base_ + 32 < call_.tile_count) Advance();
    total_ = before_ + __shfl_sync(~0u, through_, 31);
  }
  __device__ __forceinline__ uint32_t total() const { return total_; }
  // The tile of stack `which`, and which of its own it is.
  __device__ __forceinline__ void Find(uint32_t which, uint32_t* tile, uint32_t* own) {
    if (which < before_) base_ = before_ = 0, Load();
    while (which >= before_ + __shfl_sync(~0u, through_, 31)) Advance();
    const int found = __ffs(__ballot_sync(~0u, which < before_ + through_)) - 1;
    *tile = base_ + found;
    *own = which - before_ - __shfl_sync(~0u, through_ - count_, found);
  }

 private:
  __device__ __forceinline__ void Load() {
    const uint32_t heads = call_.q_heads / call_.kv_heads, at = base_ + lane_;
    count_ = at < call_.tile_count
                 ? (call_.tiles[at].rows * heads + kPrefillStackRows - 1) / kPrefillStackRows
                 : 0;
    through_ = count_;
    for (int i = 1; i < 32; i *= 2) {
      const uint32_t above = __shfl_up_sync(~0u, through_, i);
      if (lane_ >= i) through_ += above;
    }
  }
  __device__ __forceinline__ void Advance() {
    before_ += __shfl_sync(~0u, through_, 31);
    base_ += 32;
    Load();
  }

  const PrefillAttention& call_;
  const int lane_;
  uint32_t base_ = 0, before_ = 0;  // of the tiles in hand
  uint32_t count_ = 0, through_ = 0;
  uint32_t total_ = 0;
};

// Keys that a row sees, as a number that no distance exceeds if it sees all.
__device__ __forceinline__ int PrefillWindow(const PrefillAttention& call) {
  return call.window == 0 ? 1 << 30 : static_cast<int>(call.window);
}

// The warp that copies.
template <int Dim>
class PrefillSupplier {
 public:
  using Shared = PrefillShared<Dim>;
  __device__ __forceinline__ PrefillSupplier(const PrefillAttention& call, Shared* shared,
                                             uint32_t parts)
      : call_(call), shared_(shared), parts_(parts), lane_(threadIdx.x % 32) {}

  // All blocks read the same pages at about the same time, which the L2 cache needs: shares of
  // equal size, cut wherever they end, took 8 % longer. next: of the stacks, taken one by one, so
  // that a block that begins late, another kernel having its multiprocessor, holds up nobody.
  __device__ __forceinline__ void Run(uint32_t* next) {
    PrefillCursor stacks(call_, lane_);
    constexpr uint32_t kSpan = PrefillSpanPages(Dim);
    const uint32_t all = stacks.total() * parts_ * call_.kv_heads;
    const auto take = [&] { return __shfl_sync(~0u, lane_ == 0 ? atomicAdd(next, 1u) : 0u, 0); };
#pragma unroll 1
    for (uint32_t i = take(); i < all; i = take()) {
      uint32_t at, own;
      stacks.Find(i % stacks.total(), &at, &own);
      const uint32_t part = i / stacks.total() % parts_;
      const PrefillStack stack(call_, at, i / stacks.total() / parts_, own * kPrefillStackRows);
      if (part > 0 && part * kSpan >= stack.tile.pages) continue;
      PrefillMessage message{PrefillWhat::kStack, {}};
      message.stack = {at, stack.kv_head, stack.first, part};
      Post(message);
      Spans(stack, part, call_.twice ? PrefillWhat::kTileEnd : PrefillWhat::kStackEnd);
      if (!call_.twice) continue;
      Spans({call_, at + call_.tile_count, stack.kv_head, stack.first}, part,
            PrefillWhat::kStackEnd);
    }
    Post({PrefillWhat::kDone, {}});
  }

 private:
  // Posts the spans of the stack's tile from a part on; last: what is said behind them.
  __device__ __forceinline__ void Spans(const PrefillStack& stack, uint32_t part,
                                        PrefillWhat last) {
    constexpr uint32_t kSpan = PrefillSpanPages(Dim);
    uint32_t first = part * kSpan;
    const uint32_t end = parts_ > 1 ? min(first + kSpan, stack.tile.pages) : stack.tile.pages;
    do {
      Pages(stack, first, min(first + kSpan, end));
      first += kSpan;
      Post({first < end ? PrefillWhat::kSpanEnd : last, {}});
    } while (first < end);
  }
  // Posts what is visible of the pages [first, end) of the tile.
  __device__ __forceinline__ void Pages(const PrefillStack& stack, uint32_t first, uint32_t end) {
    const PrefillTile& tile = stack.tile;
    const auto lowest = static_cast<int>(stack.first / stack.heads);
    const int highest = min(static_cast<int>((stack.first + kPrefillStackRows - 1) / stack.heads),
                            static_cast<int>(tile.rows) - 1);
    for (; first < end; first += 32) {
      PrefillMessage message{PrefillWhat::kPage, {}};
      bool seen = false;
      if (first + lane_ < end) {
        const DevicePage& page = call_.pages[tile.first_page + first + lane_];
        constexpr int64_t kFar = 1 << 29;
        const int64_t delta = tile.first_position - page.first_position + 1;
        message.page.hidden = page.hidden;
        message.page.tokens = page.tokens;
        message.page.delta = static_cast<int>(min(max(delta, -kFar), kFar));
        const int reach = message.page.delta - PrefillWindow(call_);
        seen = max(int{page.hidden}, reach + lowest) <
               min(int{page.tokens}, message.page.delta + highest);
        message.page.whole = page.hidden == 0 && reach + highest <= 0 &&
                             page.tokens == kTileTokens &&
                             message.page.delta + lowest >= kTileTokens;
      }
      for (uint32_t left = __ballot_sync(~0u, seen); left != 0; left &= left - 1) {
        const int from = __ffs(left) - 1;
        PrefillMessage one{PrefillWhat::kPage, {}};
        one.page.hidden = __shfl_sync(~0u, message.page.hidden, from);
        one.page.tokens = __shfl_sync(~0u, message.page.tokens, from);
        one.page.delta = __shfl_sync(~0u, message.page.delta, from);
        one.page.whole = __shfl_sync(~0u, message.page.whole, from);
        Post(one, stack.kv_head * call_.page_count + tile.first_page + first + from);
      }
    }
  }

  static constexpr uint32_t kNoTile = ~0u;
  // tile: of the expanded ones, which comes with the message.
  __device__ __forceinline__ void Post(const PrefillMessage& message, uint32_t tile = kNoTile) {
    if (lane_ == 0) {
      const auto [stage, parity] = keys_;
      ptx::WaitPhase(&shared_->keys_empty[stage], parity ^ 1);
      shared_->messages[stage] = message;
      uint64_t* full = &shared_->keys_full[stage];
      if (tile == kNoTile) {
        ptx::Arrive(full);
      } else {
        ptx::ArriveExpecting(full, Shared::kTileBytes);
        CopyTile(shared_->keys[stage], call_.keys, tile, full);
        const auto [at, values_parity] = values_;
        ptx::WaitPhase(&shared_->values_empty[at], values_parity ^ 1);
        full = &shared_->values_full[at];
        ptx::ArriveExpecting(full, Shared::kTileBytes);
        CopyTile(shared_->values[at], call_.values, tile, full);
      }
    }
    __syncwarp();
    keys_.Next();
    if (tile != kNoTile) values_.Next();
  }

  static __device__ __forceinline__ void CopyTile(uint8_t* to, const uint16_t* from, uint32_t tile,
                                                  uint64_t* full) {
    ptx::CopyToShared(to, from + uint64_t{tile} * (kTileTokens * Dim), Shared::kTileBytes, full);
  }

  const PrefillAttention& call_;
  Shared* const shared_;
  const uint32_t parts_;
  const int lane_;
  RingPlace<Shared::kStages> keys_, values_;
};

}  // namespace corpusd::cuda
