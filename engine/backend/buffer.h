// engine/backend/buffer.h -- memory and weights that a Backend owns on its device. Not a cache
// and not a pool: each object frees what it holds when it goes, and must not outlive its Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/shapes.h"
#include "kernels/weight_types.h"

namespace corpusd {

// Device memory, 64-byte aligned, freed with the object. Host-addressable on the CPU.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() = 0;
  virtual uint64_t bytes() const = 0;
  // A float32 matrix over the start of the buffer. REQUIRES: rows * cols * 4 <= bytes().
  MatrixView Matrix(uint32_t rows, uint32_t cols) {
    return {reinterpret_cast<float*>(data()), rows, cols, cols};
  }
};

// One matrix of a model file, as stored there: [rows, cols], row after row, cols contiguous.
struct WeightSource {
  std::string name;
  WeightType type = WeightType::kF32;
  uint32_t rows = 0;  // outputs
  uint32_t cols = 0;  // inputs
  std::span<const std::byte> bytes;
};

// A matrix repacked for a backend; its layout is the backend's secret.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual uint32_t rows() const = 0;
  virtual uint32_t cols() const = 0;
  virtual uint64_t bytes() const = 0;
};

}  // namespace corpusd
