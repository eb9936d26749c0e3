// What the CUDA backend does beside products, experts and attention: norms, activations, sums.
#include "engine/backend/cuda/cuda_backend.h"
#include "kernels/cuda/elementwise.h"
#include "store/base/check.h"

namespace corpusd {

void CudaBackend::RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) {
  Begin();
  const auto copy = arrays_.Gain(gain, x.cols);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::RmsNormRows>("normalize", View(out), View(x), *copy, epsilon);
}

void CudaBackend::SwiGlu(MatrixView out, MatrixView gate_up) {
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  Do<cuda::SwiGluRows>("activate", View(out), View(gate_up));
}

void CudaBackend::GeGlu(MatrixView out, MatrixView gate_up) {
  Begin();
  if (!failed_.ok() || out.rows == 0) return;
  Do<cuda::GeGluRows>("activate", View(out), View(gate_up));
}

void CudaBackend::HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) {
  CHECK(x.cols % head_dim == 0) << x.cols << " columns, heads of " << head_dim;
  Begin();
  const auto copy = arrays_.Gain(gain, head_dim);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::NormHeads>("normalize heads", View(x), head_dim, *copy, epsilon);
}

void CudaBackend::ScaleRows(MatrixView x, std::span<const float> factors) {
  CHECK(factors.size() == x.rows) << factors.size() << " factors of " << x.rows << " rows";
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  const auto sent = slots_.Put(factors.data(), factors.size_bytes());
  if (!Keep(sent.status())) return;
  Do<cuda::ScaleRows>("scale rows", View(x), reinterpret_cast<const float*>(*sent));
}

void CudaBackend::AddBias(MatrixView x, const float* bias) {
  Begin();
  const auto copy = arrays_.Gain(bias, x.cols);
  if (!Keep(copy.status()) || x.rows == 0) return;
  Do<cuda::AddBiasRows>("add a bias", View(x), *copy);
}

void CudaBackend::Add(MatrixView x, MatrixView y) {
  CHECK(x.rows == y.rows && x.cols == y.cols) << x.rows << " x " << x.cols;
  Begin();
  if (!failed_.ok() || x.rows == 0) return;
  Do<cuda::AddRows>("add", View(x), View(y));
}

}  // namespace corpusd
