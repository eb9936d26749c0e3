#include "kernels/reference/rope.h"

namespace corpusd {

void RotateHead(double* out, const float* head, uint32_t head_dim, const RopeTable* rope,
                uint32_t delta) noexcept {
  const uint32_t turned = rope == nullptr ? 0 : rope->half_dim * 2;
  const float* cos_sin = rope == nullptr ? nullptr : rope->row(delta);
  for (uint32_t i = 0; i < turned; i += 2) {
    const double c = cos_sin[i];
    const double s = cos_sin[i + 1];
    out[i] = head[i] * c - head[i + 1] * s;
    out[i + 1] = head[i + 1] * c + head[i] * s;
  }
  for (uint32_t i = turned; i < head_dim; ++i) out[i] = head[i];
}

}  // namespace corpusd
