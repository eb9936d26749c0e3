#include "engine/retrieval/block_keys.h"

#include <algorithm>

#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;

// x[0:head_dim] turned back by row `slot` of the table.
void TurnBack(float* x, const RopeTable& rope, uint32_t slot) {
  const float* cos_sin = rope.row(slot);
  for (uint32_t i = 0; i < rope.half_dim * 2; i += 2) {
    const float c = cos_sin[i];
    const float s = cos_sin[i + 1];
    const float even = x[i];
    x[i] = even * c + x[i + 1] * s;
    x[i + 1] = x[i + 1] * c - even * s;
  }
}

// x = mean + y * inverse; sums run over ascending coordinates.
void FromCoordinates(float* x, const double* y, const KvCoordinates& coordinates,
                     uint32_t head_dim) {
  std::copy_n(coordinates.mean, head_dim, x);
  for (uint32_t j = 0; j < head_dim; ++j) {
    const auto yj = static_cast<float>(y[j]);
    const float* row = coordinates.inverse + size_t{j} * head_dim;
    for (uint32_t i = 0; i < head_dim; ++i) x[i] += yj * row[i];
  }
}

}  // namespace

void ReadBlockKeys(float* out, const KvFormat& format, const KvCalibration* calibration,
                   const RopeTable* rope, const std::byte* block, const KeySource& source,
                   uint32_t tokens) {
  const std::byte* tile = block + format.KeyTileOffset(source.layer, source.kv_head);
  const KvCodec codec = format.CodecsOf(source.layer).key;
  const bool coded = IsCoded(codec);
  CHECK(!coded || calibration != nullptr) << "coded keys without their calibration";
  for (uint32_t t = 0; t < tokens; ++t) {
    float* x = out + size_t{t} * format.head_dim;
    if (coded) {
      double y[kMaxHeadDim];
      ReadCodedRow(y, tile, codec, /*is_key=*/true, format.head_dim, t);
      FromCoordinates(x, y, calibration->layer(source.layer)[source.kv_head].key, format.head_dim);
    } else {
      ReadKey(x, tile, format, t);
    }
    if (rope != nullptr) TurnBack(x, *rope, t);
  }
}

}  // namespace corpusd
