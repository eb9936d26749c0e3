// kernels/cpu/isa/page_expand.h -- pages in the coordinates of a basis as bf16 tiles of plain keys
// and values, x = y * inverse + mean, keys turned from their page's frame to the task's: what many
// rows attend to. A page's tiles depend on its bytes and the frame alone. In float32, over Lanes,
// 16 tokens at a time; amx_expand.h has the products by tiles. Included after attention_rows.h and
// a header with RoundPairsBf16 by one translation unit.
#pragma once

namespace corpusd {
namespace {

struct ExpandWork {
  UnpackedTile unpacked;
  uint16_t* factor;  // [kBlockTokens, head_dim]: levels in bf16; or a strip of floats
  float* product;    // [kBlockTokens, head_dim]
  uint16_t* matrix;  // two matrices in two terms
  float* constants;  // [head_dim]: what each dim of x gets, whatever the codes
};
inline ExpandWork CarveExpand(const ExpandTask& task) {
  const size_t tile = size_t{kBlockTokens} * task.head_dim;
  ExpandWork work;
  work.unpacked.levels = task.scratch;
  work.factor = reinterpret_cast<uint16_t*>(task.scratch + tile);
  work.product = reinterpret_cast<float*>(task.scratch + tile * 3);
  work.matrix = reinterpret_cast<uint16_t*>(task.scratch + tile * 7);
  work.unpacked.scales =
      reinterpret_cast<float*>(work.matrix + size_t{task.head_dim} * task.head_dim * 4);
  work.unpacked.means = work.unpacked.scales + kBlockTokens;
  work.constants = work.unpacked.means + task.head_dim;
  return work;
}

// The place in slot order -> what stands there, among 16.
constexpr uint32_t AtSlot(uint32_t place) { return place % 16 / 2 + place % 2 * 8; }
constexpr uint32_t SlotOf(uint32_t token) { return token % 8 * 2 + token / 8; }

// constants = mean + means * inverse.
inline void ExpandConstants(const PageTile& tile, const KvCoordinates& from, uint32_t head_dim,
                            float* constants) {
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    Lanes sum = Load(from.mean + i);
    for (uint32_t j = 0; j < head_dim && tile.means != nullptr; ++j) {
      sum = Fma(BroadcastFrom(tile.means + j), Load(from.inverse + size_t{j} * head_dim + i), sum);
    }
    Store(constants + i, sum);
  }
}

// 16 tokens from t on of products [head_dim][stride], x but for scale and constant: into a K tile.
template <typename Rounding>
inline void FinishKeys(const ExpandTask& task, uint64_t turn, const PageTile& tile,
                       const ExpandWork& work, uint32_t t, const float* product, size_t stride,
                       std::byte* out) {
  const Lanes scale = tile.scales == nullptr ? Broadcast(1.0f) : Load(tile.scales + t);
  const uint32_t turned = task.rope == nullptr ? 0 : task.rope->half_dim * 2;
  const float* cos_sin =
      task.rope == nullptr ? nullptr : task.rope->cos_sin + turn * task.rope->half_dim * 2;
  for (uint32_t i = 0; i < task.head_dim; i += 2) {
    Lanes even = Fma(Load(product + i * stride), scale, BroadcastFrom(work.constants + i));
    Lanes odd = Fma(Load(product + (i + 1) * stride), scale, BroadcastFrom(work.constants + i + 1));
    if (i < turned) {
      const Lanes cosine = BroadcastFrom(cos_sin + i);
      const Lanes sine = BroadcastFrom(cos_sin + i + 1);
      const Lanes x = Sub(Mul(even, cosine), Mul(odd, sine));
      odd = Fma(odd, cosine, Mul(even, sine));
      even = x;
    }
    Rounding::StorePairs(out + (size_t{i / 2} * kBlockTokens + t) * 4, even, odd);
  }
}

// Tokens [t, t + 16) of products [16][head_dim], into a V tile.
template <typename Rounding>
inline void FinishValues(uint32_t head_dim, const PageTile& tile, const ExpandWork& work,
                         uint32_t t, const float* product, std::byte* out) {
  for (uint32_t n = 0; n < kLanes; n += 2) {
    Lanes scales[2];
    for (uint32_t k = 0; k < 2; ++k) {
      scales[k] =
          tile.scales == nullptr ? Broadcast(1.0f) : BroadcastFrom(tile.scales + t + SlotOf(n + k));
    }
    const float* row = product + size_t{n} * head_dim;
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      const Lanes constant = Load(work.constants + i);
      Rounding::StorePairs(out + (size_t{(t + n) / 2} * head_dim + i) * 4,
                           Fma(Load(row + i), scales[0], constant),
                           Fma(Load(row + head_dim + i), scales[1], constant));
    }
  }
}

struct IntegerRounding {
  static void StorePairs(std::byte* p, Lanes even, Lanes odd) {
    StoreInts(p, RoundPairsBf16(even, odd));
  }
};

// y of 16 tokens from t on as floats [head_dim][16], in the natural order of dims.
inline void KeyStrip(const PageTile& tile, uint32_t head_dim, uint32_t t, float* strip) {
  const auto at = [strip](uint32_t dim) { return strip + size_t{dim} * kLanes; };
  if (tile.codec == KvCodec::kBf16) {
    for (uint32_t i = 0; i < head_dim; i += 2) {
      const IntLanes v = LoadInt(tile.tile + (size_t{i / 2} * kBlockTokens + t) * 4);
      Store(at(i), LowBf16ToFloat(v));
      Store(at(i + 1), HighBf16ToFloat(v));
    }
    return;
  }
  for (uint32_t i = 0; i < head_dim; i += 4) {
    const IntLanes v = LoadInt(tile.tile + (size_t{i / 4} * kBlockTokens + t) * 4);
    const uint32_t first = i / 16 * 16;
    Store(at(first + AtSlot(i)), ByteToFloat<0>(v));
    Store(at(first + AtSlot(i + 1)), ByteToFloat<1>(v));
    Store(at(first + AtSlot(i + 2)), ByteToFloat<2>(v));
    Store(at(first + AtSlot(i + 3)), ByteToFloat<3>(v));
  }
}
// The same of values, [16][head_dim].
inline void ValueStrip(const PageTile& tile, uint32_t head_dim, uint32_t t, float* strip) {
  const auto at = [strip, head_dim](uint32_t n, uint32_t i) {
    return strip + size_t{n} * head_dim + i;
  };
  const uint32_t pack = tile.codec == KvCodec::kBf16 ? 2 : 4;
  for (uint32_t n = 0; n < kLanes; n += pack) {
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      const IntLanes v = LoadInt(tile.tile + (size_t{(t + n) / pack} * head_dim + i) * 4);
      if (pack == 2) {
        Store(at(n, i), LowBf16ToFloat(v));
        Store(at(n + 1, i), HighBf16ToFloat(v));
        continue;
      }
      Store(at(AtSlot(n), i), ByteToFloat<0>(v));
      Store(at(AtSlot(n + 1), i), ByteToFloat<1>(v));
      Store(at(AtSlot(n + 2), i), ByteToFloat<2>(v));
      Store(at(AtSlot(n + 3), i), ByteToFloat<3>(v));
    }
  }
}

// The two products in float32.
struct FloatExpansion {
  explicit FloatExpansion(const ExpandTask& /*task*/, const ExpandWork& /*work*/) {}

  void Keys(const ExpandTask& task, uint64_t turn, const PageTile& tile, const ExpandWork& work,
            std::byte* out) {
    const uint32_t head_dim = task.head_dim;
    auto* strip = reinterpret_cast<float*>(work.factor);
    for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
      KeyStrip(tile, head_dim, t, strip);
      FloatGemm(head_dim, task.basis->key.query, head_dim, strip, head_dim, work.product, kLanes,
                false);
      FinishKeys<IntegerRounding>(task, turn, tile, work, t, work.product, kLanes, out);
    }
  }
  void Values(const ExpandTask& task, const PageTile& tile, const ExpandWork& work,
              std::byte* out) {
    const uint32_t head_dim = task.head_dim;
    auto* strip = reinterpret_cast<float*>(work.factor);
    for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
      ValueStrip(tile, head_dim, t, strip);
      for (uint32_t i = 0; i < head_dim; i += kLanes) {
        FloatGemm(kLanes, strip, head_dim, task.basis->value.inverse + i, head_dim,
                  work.product + i, head_dim, false, head_dim);
      }
      FinishValues<IntegerRounding>(head_dim, tile, work, t, work.product, out);
    }
  }
};

template <typename Expansion>
void ExpandPages(const ExpandTask& task) noexcept {
  const ExpandWork work = CarveExpand(task);
  Expansion products(task, work);
  for (uint32_t i = 0; i < task.page_count; ++i) {
    const PageTiles& page = task.pages[i];
    if (page.hidden >= page.tokens) continue;  // seen by nobody, and perhaps not there
    std::byte* out = task.out + i * task.out_stride;
    const PageTile keys = ResolveTile(page.keys + task.kv_head * page.key_stride, page.key_codec,
                                      true, task.head_dim, kBlockTokens, work.unpacked);
    ExpandConstants(keys, task.basis->key, task.head_dim, work.constants);
    products.Keys(task, page.first_position - task.frame, keys, work, out);
    const PageTile values =
        ResolveTile(page.values + task.kv_head * page.value_stride, page.value_codec, false,
                    task.head_dim, kBlockTokens, work.unpacked);
    ExpandConstants(values, task.basis->value, task.head_dim, work.constants);
    products.Values(task, values, work, out + ExpandedTileBytes(task.head_dim));
  }
}

// A page of a task that comes as it lies, expanded into the task's scratch.
template <typename Expansion, typename Work>
PageTiles ExpandHere(const AttentionTask& task, const PageTiles& page, const Work& work) {
  const uint64_t tile = ExpandedTileBytes(task.shape.head_dim);
  ExpandPages<Expansion>({.pages = &page,
                          .page_count = 1,
                          .kv_head = task.kv_head,
                          .head_dim = task.shape.head_dim,
                          .rope = task.rope,
                          .basis = task.basis,
                          .frame = task.frame,
                          .out = work.page,
                          .out_stride = 2 * tile,
                          .scratch = work.page + 2 * tile});
  PageTiles plain = page;
  plain.keys = work.page;
  plain.values = work.page + tile;
  plain.key_stride = plain.value_stride = 0;
  plain.key_codec = plain.value_codec = KvCodec::kBf16;
  plain.expanded = true;
  return plain;
}

}  // namespace
}  // namespace corpusd
