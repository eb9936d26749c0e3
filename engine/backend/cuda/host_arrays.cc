#include "engine/backend/cuda/host_arrays.h"

#include <algorithm>

namespace corpusd {
namespace {

constexpr size_t kSampleFloats = 8;

// One side of one head, in the order of cuda::BasisPart. An array that a side lacks is zeros.
void AppendSide(const KvCoordinates& side, size_t dim, std::vector<float>* out) {
  const auto append = [&](const float* array, size_t count) {
    if (array == nullptr) {
      out->insert(out->end(), count, 0.0f);
    } else {
      out->insert(out->end(), array, array + count);
    }
  };
  append(side.forward, dim * dim);
  append(side.inverse, dim * dim);
  append(side.query, dim * dim);
  for (size_t i = 0; i < dim; ++i) {
    for (size_t j = 0; j < dim; ++j) {
      out->push_back(side.feedback == nullptr ? 0.0f : side.feedback[j * dim + i]);
    }
  }
  append(side.mean, dim);
  append(side.mean_coordinates, dim);
  append(side.weight, dim);
}

}  // namespace

Result<const float*> HostArrays::Find(const void* address, std::span<const float> sample,
                                      const std::function<void(std::vector<float>*)>& fill) {
  Copy& copy = copies_[address];
  if (copy.buffer != nullptr && std::ranges::equal(copy.sample, sample)) {
    return reinterpret_cast<const float*>(copy.buffer->data());
  }
  std::vector<float> content;
  fill(&content);
  copy.buffer.reset();
  ASSIGN_OR_RETURN(auto buffer,
                   CudaBuffer::Create(pool_, content.size() * sizeof(float), "a model's arrays"));
  RETURN_IF_ERROR(upload_(buffer->data(), content.data(), content.size()));
  copy.buffer = std::move(buffer);
  copy.sample.assign(sample.begin(), sample.end());
  return reinterpret_cast<const float*>(copy.buffer->data());
}

Result<const float*> HostArrays::Gain(const float* gain, uint32_t count) {
  return Find(gain, {gain, count},
              [&](std::vector<float>* content) { content->assign(gain, gain + count); });
}

Result<cuda::DeviceRope> HostArrays::Rope(const RopeTable* rope) {
  if (rope == nullptr) return cuda::DeviceRope();
  // The first and the last pairs of row 1 and of the last row: scalings of the frequencies show in
  // one of them.
  const size_t width = size_t{rope->half_dim} * 2;
  const size_t some = std::min<size_t>(width, kSampleFloats);
  sample_.assign({static_cast<float>(rope->positions), static_cast<float>(rope->half_dim)});
  for (const uint32_t row : {std::min(1u, rope->positions - 1), rope->positions - 1}) {
    sample_.insert(sample_.end(), rope->row(row), rope->row(row) + some);
    sample_.insert(sample_.end(), rope->row(row) + width - some, rope->row(row) + width);
  }
  ASSIGN_OR_RETURN(const float* const table,
                   Find(rope->cos_sin, sample_, [&](std::vector<float>* content) {
                     content->assign(rope->cos_sin, rope->cos_sin + rope->positions * width);
                   }));
  return cuda::DeviceRope{table, rope->half_dim};
}

Result<cuda::DeviceBasis> HostArrays::Basis(const KvBasis* basis, uint32_t kv_heads,
                                            uint32_t head_dim) {
  if (basis == nullptr) return cuda::DeviceBasis();
  // The beginning of the means and of the map of each side: calibrations differ in all of them.
  sample_.assign({static_cast<float>(kv_heads), static_cast<float>(head_dim)});
  for (uint32_t h = 0; h < kv_heads; ++h) {
    for (const KvCoordinates* side : {&basis[h].key, &basis[h].value}) {
      sample_.insert(sample_.end(), side->mean, side->mean + kSampleFloats);
      sample_.insert(sample_.end(), side->forward, side->forward + kSampleFloats);
    }
  }
  ASSIGN_OR_RETURN(const float* const arrays,
                   Find(basis[0].key.forward, sample_, [&](std::vector<float>* content) {
                     for (uint32_t h = 0; h < kv_heads; ++h) {
                       AppendSide(basis[h].key, head_dim, content);
                       AppendSide(basis[h].value, head_dim, content);
                     }
                   }));
  return cuda::DeviceBasis{arrays};
}

}  // namespace corpusd
