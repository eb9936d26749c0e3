// engine/calibration/kv_calibration.h -- the coordinates of every layer and KV head of one model,
// as one durable object with a digest: the digest is part of the root of every chain that is coded
// by it. Immutable after it was made; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/calibration/coordinates.h"
#include "kernels/kv_basis.h"
#include "store/base/result.h"

namespace corpusd {

struct KvCalibrationShape {
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  bool operator==(const KvCalibrationShape&) const = default;
};

class KvCalibration {
 public:
  // keys, values: [layers * kv_heads], layer by layer.
  KvCalibration(const KvCalibrationShape& shape, std::vector<KvCoordinateArrays> keys,
                std::vector<KvCoordinateArrays> values);
  KvCalibration(const KvCalibration&) = delete;
  KvCalibration& operator=(const KvCalibration&) = delete;

  const KvCalibrationShape& shape() const { return shape_; }
  // [kv_heads] of one layer; lives as long as this object.
  const KvBasis* layer(uint32_t index) const { return bases_.data() + index * shape_.kv_heads; }
  // The same of heads [first, first + count) of every layer.
  std::unique_ptr<KvCalibration> OfHeads(uint32_t first, uint32_t count) const;
  // Hex SHA-256 of Bytes().
  const std::string& digest() const { return digest_; }

  // The file format, in store/FORMAT.md's terms: "CKVCAL1\n", uint32 layers, kv_heads, head_dim,
  // then per layer, KV head, side (keys, values): mean [D], forward [D, D], inverse [D, D],
  // feedback [D, D], weight [D], float32; all little-endian; at the end the SHA-256 of all before
  // it.
  std::string Bytes() const;
  // kCorruption, saying what is wrong, if the bytes are not such a file.
  static Result<std::unique_ptr<KvCalibration>> Parse(std::span<const std::byte> bytes);

 private:
  // One side of one head: the arrays and those derived from them.
  struct Side {
    KvCoordinateArrays arrays;
    std::vector<float> query;             // the transpose of inverse
    std::vector<uint16_t> query_pairs;    // of it
    std::vector<float> mean_coordinates;  // mean * forward
    KvCoordinates view() const;
  };
  static Side Derive(KvCoordinateArrays arrays, uint32_t head_dim);
  std::string Payload() const;

  const KvCalibrationShape shape_;
  std::vector<Side> keys_, values_;
  std::vector<KvBasis> bases_;
  std::string digest_;
};

}  // namespace corpusd
