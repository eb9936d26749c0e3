#include "engine/calibration/coordinates.h"

#include <Eigen/Dense>
#include <bit>
#include <cmath>
#include <string>

#include "store/base/split_mix.h"

namespace corpusd {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// 0: whitened data; 1/4: data and error weigh the same in each coordinate. With noise feedback
// little is needed: tests/eval/README.md.
constexpr double kPower = 0.1;
// Of the mean variance, added to the diagonal: a direction that the calibration text does not use
// must not become infinitely fine.
constexpr double kRidge = 1e-5;

Matrix Square(const std::vector<double>& values, uint32_t size) {
  return Eigen::Map<const Matrix>(values.data(), size, size);
}

void AddRidge(Matrix& matrix) {
  const double mean = matrix.trace() / static_cast<double>(matrix.rows());
  matrix.diagonal().array() += kRidge * mean + 1e-30;
}

// Sylvester's Hadamard matrix with the signs of its columns drawn by SplitMix64: the same on
// every host.
Matrix SignedHadamard(uint32_t size) {
  Matrix h(size, size);
  const double unit = 1 / std::sqrt(static_cast<double>(size));
  SplitMix random(0);
  for (uint32_t column = 0; column < size; ++column) {
    const double sign = (random.Next() & 1) != 0 ? unit : -unit;
    for (uint32_t row = 0; row < size; ++row) {
      h(row, column) = std::popcount(row & column) % 2 == 0 ? sign : -sign;
    }
  }
  return h;
}

std::vector<float> Floats(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.size()));
  Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
      values.data(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return values;
}

}  // namespace

Result<KvCoordinateArrays> BuildCoordinates(const KvMoments& moments, uint32_t head_dim) {
  if (!std::has_single_bit(head_dim)) {
    return InvalidArgumentError("head_dim " + std::to_string(head_dim) +
                                " is no power of two, which the cq formats need");
  }
  Matrix covariance = Square(moments.covariance, head_dim);
  Matrix price = Square(moments.price, head_dim);
  AddRidge(covariance);
  AddRidge(price);
  if (!covariance.allFinite() || !price.allFinite()) {
    return InvalidArgumentError("the calibration met keys or values that are not finite");
  }
  const Eigen::LLT<Matrix> data(covariance);
  const Matrix lower = data.matrixL();
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(lower.transpose() * price * lower);
  if (data.info() != Eigen::Success || eigen.info() != Eigen::Success) {
    return InvalidArgumentError("the calibration's moments have no balanced basis");
  }
  const double largest = eigen.eigenvalues().maxCoeff();
  const Eigen::VectorXd scale = eigen.eigenvalues().cwiseMax(1e-12 * largest).array().pow(kPower);
  // Rows of diag(scale) U^T L^-1; the Hadamard gives every coordinate the mean of their variances.
  Matrix balanced =
      lower.triangularView<Eigen::Lower>().transpose().solve(eigen.eigenvectors()).transpose();
  balanced = scale.asDiagonal() * balanced;
  const double deviation = std::sqrt(scale.squaredNorm() / head_dim);
  const Matrix transform = SignedHadamard(head_dim) * balanced / deviation;
  const Matrix inverse = transform.inverse();
  const Matrix price_here = inverse.transpose() * price * inverse;
  const Eigen::LLT<Matrix> factor(price_here);
  if (factor.info() != Eigen::Success || !inverse.allFinite()) {
    return InvalidArgumentError("the calibration's basis cannot be inverted");
  }
  const Matrix upper = factor.matrixU();
  KvCoordinateArrays arrays;
  for (const double mean : moments.mean) arrays.mean.push_back(static_cast<float>(mean));
  arrays.forward = Floats(transform.transpose());
  arrays.inverse = Floats(inverse.transpose());
  Matrix feedback = upper.diagonal().asDiagonal().inverse() * upper;
  feedback.diagonal().setZero();
  arrays.feedback = Floats(feedback);
  // Only their proportions matter; their mean is 1.
  const double unit = upper.diagonal().squaredNorm() / head_dim;
  for (uint32_t j = 0; j < head_dim; ++j) {
    arrays.weight.push_back(static_cast<float>(upper(j, j) * upper(j, j) / unit));
  }
  return arrays;
}

}  // namespace corpusd
