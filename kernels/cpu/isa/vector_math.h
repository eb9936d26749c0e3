// kernels/cpu/isa/vector_math.h -- exp, and the row-wise operations between matrix products, over
// Lanes. Included after a lanes_*.h by one translation unit; all in its anonymous namespace.
#pragma once

#include "kernels/shapes.h"

namespace corpusd {
namespace {

constexpr uint32_t kLanes = 16;

inline uint32_t MinU32(uint32_t a, uint32_t b) { return a < b ? a : b; }

inline Lanes LoadFirst(const float* p, uint32_t count) {
  if (count >= kLanes) return Load(p);
  float values[kLanes] = {};
  for (uint32_t i = 0; i < count; ++i) values[i] = p[i];
  return Load(values);
}
inline void StoreFirst(float* p, Lanes v, uint32_t count) {
  if (count >= kLanes) return Store(p, v);
  float values[kLanes];
  Store(values, v);
  for (uint32_t i = 0; i < count; ++i) p[i] = values[i];
}

// e^x within 2 units in the last place; exactly 0 below -87.3, so a masked score of minus infinity
// weighs nothing; capped above 88. x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 in
// r (Taylor's: the next term is below 2^-26).
inline Lanes Exp(Lanes x) {
  const Lanes lowest = Broadcast(-87.3f);
  const Lanes bounded = Min(Max(x, lowest), Broadcast(88.0f));
  const Lanes n = RoundToInt(Mul(bounded, Broadcast(1.44269504f)));
  Lanes r = Fma(n, Broadcast(-0.693359375f), bounded);
  r = Fma(n, Broadcast(2.12194440e-4f), r);
  Lanes p = Broadcast(1.0f / 720);
  p = Fma(p, r, Broadcast(1.0f / 120));
  p = Fma(p, r, Broadcast(1.0f / 24));
  p = Fma(p, r, Broadcast(1.0f / 6));
  p = Fma(p, r, Broadcast(0.5f));
  p = Fma(p, r, Broadcast(1.0f));
  p = Fma(p, r, Broadcast(1.0f));
  return ZeroBelow(ScaleByPowerOfTwo(p, n), x, lowest);
}
// 2^x for x <= 0 within 2 units in the last place; 2^-126 below -126, and at minus infinity. About
// half the work of Exp: x = n + r, |r| <= 1/2, n by the rounding of an addition, a polynomial of
// degree 6.
inline Lanes Exp2(Lanes x) {
  const Lanes magic = Broadcast(12582912.0f);  // 1.5 * 2^23
  const Lanes bounded = Max(x, Broadcast(-126.0f));
  const Lanes t = Add(bounded, magic);
  const Lanes r = Sub(bounded, Sub(t, magic));
  Lanes p = Broadcast(1.5403530e-4f);
  p = Fma(p, r, Broadcast(1.3333558e-3f));
  p = Fma(p, r, Broadcast(9.6181291e-3f));
  p = Fma(p, r, Broadcast(5.5504109e-2f));
  p = Fma(p, r, Broadcast(2.4022651e-1f));
  p = Fma(p, r, Broadcast(6.9314718e-1f));
  p = Fma(p, r, Broadcast(1.0f));
  return ScaleByLowBits(p, t);
}
inline float Exp2One(float x) {
  float values[kLanes];
  Store(values, Exp2(Broadcast(x)));
  return values[0];
}

void RmsNormRows(MatrixView out, MatrixView x, const float* gain, float epsilon) noexcept {
  for (uint32_t n = 0; n < x.rows; ++n) {
    const float* a = x.row(n);
    Lanes sum = Zero();
    for (uint32_t i = 0; i < x.cols; i += kLanes) {
      const Lanes v = LoadFirst(a + i, x.cols - i);
      sum = Fma(v, v, sum);
    }
    const float mean = ReduceAdd(sum) / static_cast<float>(x.cols);
    const Lanes inverse = Broadcast(1.0f / __builtin_sqrtf(mean + epsilon));
    for (uint32_t i = 0; i < x.cols; i += kLanes) {
      const Lanes v = Mul(LoadFirst(a + i, x.cols - i), inverse);
      StoreFirst(out.row(n) + i, Mul(v, LoadFirst(gain + i, x.cols - i)), x.cols - i);
    }
  }
}

void SwiGluRows(MatrixView out, MatrixView gate_up) noexcept {
  const Lanes one = Broadcast(1.0f);
  for (uint32_t n = 0; n < out.rows; ++n) {
    const float* gate = gate_up.row(n);
    const float* up = gate + out.cols;
    for (uint32_t i = 0; i < out.cols; i += kLanes) {
      const uint32_t count = out.cols - i;
      const Lanes g = LoadFirst(gate + i, count);
      const Lanes silu = Div(g, Add(one, Exp(Sub(Zero(), g))));
      StoreFirst(out.row(n) + i, Mul(silu, LoadFirst(up + i, count)), count);
    }
  }
}

}  // namespace
}  // namespace corpusd
