#include "engine/calibration/kv_calibration.h"

#include <cmath>
#include <cstring>

#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr std::string_view kMagic = "CKVCAL1\n";
constexpr uint32_t kLayersMax = 1024, kHeadsMax = 1024, kDimMax = 256;
constexpr size_t kDigestBytes = 32;

uint64_t SideFloats(uint64_t head_dim) { return 3 * head_dim * head_dim + 2 * head_dim; }

void AppendFloats(std::string* out, const std::vector<float>& values) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

// Takes arrays out of checked bytes.
class FloatReader {
 public:
  explicit FloatReader(const std::byte* next) : next_(next) {}
  std::vector<float> Take(size_t count) {
    std::vector<float> values(count);
    std::memcpy(values.data(), next_, count * sizeof(float));
    next_ += count * sizeof(float);
    for (const float value : values) finite_ = finite_ && std::isfinite(value);
    return values;
  }
  KvCoordinateArrays TakeSide(size_t head_dim) {
    KvCoordinateArrays arrays;
    arrays.mean = Take(head_dim);
    arrays.forward = Take(head_dim * head_dim);
    arrays.inverse = Take(head_dim * head_dim);
    arrays.feedback = Take(head_dim * head_dim);
    arrays.weight = Take(head_dim);
    return arrays;
  }
  bool finite() const { return finite_; }

 private:
  const std::byte* next_;
  bool finite_ = true;
};

}  // namespace

KvCoordinates KvCalibration::Side::view() const {
  return {.forward = arrays.forward.data(),
          .inverse = arrays.inverse.data(),
          .query = query.data(),
          .query_pairs = query_pairs.data(),
          .mean = arrays.mean.data(),
          .mean_coordinates = mean_coordinates.data(),
          .feedback = arrays.feedback.data(),
          .weight = arrays.weight.data()};
}

KvCalibration::Side KvCalibration::Derive(KvCoordinateArrays arrays, uint32_t head_dim) {
  const size_t square = size_t{head_dim} * head_dim;
  CHECK(arrays.mean.size() == head_dim && arrays.forward.size() == square &&
        arrays.inverse.size() == square && arrays.feedback.size() == square &&
        arrays.weight.size() == head_dim)
      << "coordinates of " << head_dim;
  Side side;
  side.query.resize(square);
  side.mean_coordinates.assign(head_dim, 0);
  for (size_t i = 0; i < head_dim; ++i) {
    for (size_t j = 0; j < head_dim; ++j) {
      side.query[j * head_dim + i] = arrays.inverse[i * head_dim + j];
    }
  }
  side.query_pairs.resize(square);
  QueryPairs(side.query_pairs.data(), side.query.data(), head_dim);
  for (size_t j = 0; j < head_dim; ++j) {
    double sum = 0;
    for (size_t i = 0; i < head_dim; ++i) {
      sum += double{arrays.mean[i]} * arrays.forward[i * head_dim + j];
    }
    side.mean_coordinates[j] = static_cast<float>(sum);
  }
  side.arrays = std::move(arrays);
  return side;
}

KvCalibration::KvCalibration(const KvCalibrationShape& shape, std::vector<KvCoordinateArrays> keys,
                             std::vector<KvCoordinateArrays> values)
    : shape_(shape) {
  const size_t heads = size_t{shape.layers} * shape.kv_heads;
  CHECK(keys.size() == heads && values.size() == heads) << keys.size() << " of " << heads;
  for (KvCoordinateArrays& arrays : keys)
    keys_.push_back(Derive(std::move(arrays), shape.head_dim));
  for (KvCoordinateArrays& arrays : values) {
    values_.push_back(Derive(std::move(arrays), shape.head_dim));
  }
  for (size_t i = 0; i < heads; ++i) bases_.push_back({keys_[i].view(), values_[i].view()});
  Sha256 hash;
  hash.Update(Payload());
  digest_ = HexText(hash.Finish());
}

std::unique_ptr<KvCalibration> KvCalibration::OfHeads(uint32_t first, uint32_t count) const {
  CHECK(first + count <= shape_.kv_heads) << first << " + " << count << " of " << shape_.kv_heads;
  std::vector<KvCoordinateArrays> keys, values;
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (uint32_t head = first; head < first + count; ++head) {
      keys.push_back(keys_[layer * shape_.kv_heads + head].arrays);
      values.push_back(values_[layer * shape_.kv_heads + head].arrays);
    }
  }
  return std::make_unique<KvCalibration>(KvCalibrationShape{shape_.layers, count, shape_.head_dim},
                                         std::move(keys), std::move(values));
}

std::string KvCalibration::Payload() const {
  std::string bytes(kMagic);
  for (const uint32_t number : {shape_.layers, shape_.kv_heads, shape_.head_dim}) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
  for (size_t i = 0; i < keys_.size(); ++i) {
    for (const Side* side : {&keys_[i], &values_[i]}) {
      for (const auto* values : {&side->arrays.mean, &side->arrays.forward, &side->arrays.inverse,
                                 &side->arrays.feedback, &side->arrays.weight}) {
        AppendFloats(&bytes, *values);
      }
    }
  }
  return bytes;
}

std::string KvCalibration::Bytes() const {
  std::string bytes = Payload();
  Sha256 hash;
  hash.Update(bytes);
  const auto digest = hash.Finish();
  bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  return bytes;
}

Result<std::unique_ptr<KvCalibration>> KvCalibration::Parse(std::span<const std::byte> bytes) {
  const size_t header = kMagic.size() + 3 * sizeof(uint32_t);
  if (bytes.size() < header + kDigestBytes ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return CorruptionError("this is not a calibration of the cq formats");
  }
  uint32_t numbers[3];
  std::memcpy(numbers, bytes.data() + kMagic.size(), sizeof(numbers));
  const KvCalibrationShape shape{numbers[0], numbers[1], numbers[2]};
  if (shape.layers < 1 || shape.layers > kLayersMax || shape.kv_heads < 1 ||
      shape.kv_heads > kHeadsMax || shape.head_dim < 1 || shape.head_dim > kDimMax) {
    return CorruptionError("a calibration of " + std::to_string(shape.layers) + " layers, " +
                           std::to_string(shape.kv_heads) + " heads of " +
                           std::to_string(shape.head_dim) + " is not possible");
  }
  const uint64_t heads = uint64_t{shape.layers} * shape.kv_heads;
  const uint64_t payload = header + heads * 2 * SideFloats(shape.head_dim) * sizeof(float);
  if (bytes.size() != payload + kDigestBytes) {
    return CorruptionError("the calibration has " + std::to_string(bytes.size()) +
                           " bytes, its shape needs " + std::to_string(payload + kDigestBytes));
  }
  Sha256 hash;
  hash.Update(bytes.first(payload));
  const auto digest = hash.Finish();
  if (std::memcmp(digest.data(), bytes.data() + payload, kDigestBytes) != 0) {
    return CorruptionError("the calibration's SHA-256 does not match its content");
  }
  FloatReader reader(bytes.data() + header);
  std::vector<KvCoordinateArrays> keys, values;
  for (uint64_t i = 0; i < heads; ++i) {
    keys.push_back(reader.TakeSide(shape.head_dim));
    values.push_back(reader.TakeSide(shape.head_dim));
  }
  if (!reader.finite()) return CorruptionError("the calibration holds numbers that are not finite");
  return std::make_unique<KvCalibration>(shape, std::move(keys), std::move(values));
}

}  // namespace corpusd
