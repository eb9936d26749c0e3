#include "engine/calibration/moment_collector.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "engine/kv/sink_page.h"
#include "kernels/kv_format.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Wide = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

// Every so many tokens of a window one query is looked at: the weights are sums over 32 windows.
constexpr uint32_t kQueryStride = 10;

// Columns [first, first + count) of a view, as Eigen sees them.
Strided Columns(MatrixView view, uint32_t first, uint32_t count) {
  return Strided(view.data + first, view.rows, count, Eigen::OuterStride<>(view.row_stride));
}

void Turn(float* head, const RopeTable& rope, uint32_t delta) {
  const float* angles = rope.row(delta);
  for (uint32_t i = 0; i < rope.half_dim * 2; i += 2) {
    const float a = head[i], b = head[i + 1];
    head[i] = a * angles[i] - b * angles[i + 1];
    head[i + 1] = b * angles[i] + a * angles[i + 1];
  }
}

// Sum, scatter about block means, and count of the rows of one side of one head.
struct Spread {
  Wide sum, scatter;
  double rows = 0;

  explicit Spread(uint32_t head_dim)
      : sum(Wide::Zero(1, head_dim)), scatter(Wide::Zero(head_dim, head_dim)) {}

  void Add(const Matrix& x) {
    for (Eigen::Index first = 0; first < x.rows(); first += kBlockTokens) {
      const Eigen::Index skip = first == 0 ? kSinkTokens : 0;
      const Eigen::Index count = std::min<Eigen::Index>(kBlockTokens, x.rows() - first) - skip;
      if (count <= 1) continue;
      const Matrix block = x.middleRows(first + skip, count);
      const Matrix centred = block.rowwise() - block.colwise().mean();
      sum += block.colwise().sum().cast<double>();
      scatter += (centred.transpose() * centred).cast<double>();
      rows += static_cast<double>(count);
    }
  }
  void Finish(KvMoments* moments) const {
    const Wide mean = sum / rows;
    const Wide covariance = scatter / rows;
    moments->mean.assign(mean.data(), mean.data() + mean.size());
    moments->covariance.assign(covariance.data(), covariance.data() + covariance.size());
  }
};

void Store(const Wide& matrix, std::vector<double>* out) {
  out->assign(matrix.data(), matrix.data() + matrix.size());
}

}  // namespace

struct MomentCollector::State {
  const ModelConfig& config;
  const RopeTable rope;
  std::vector<Matrix> metrics;  // W_o^T W_o of each query head
  std::vector<Spread> keys, values;
  std::vector<Wide> prices;  // of each query head: what its queries make of an error of a key

  void AddPrice(uint32_t head, MatrixView qkv, MatrixView attention, const Matrix& turned_keys,
                uint32_t first_query);
};

MomentCollector::MomentCollector(const ModelConfig& config, const RopeTable& rope,
                                 std::vector<float> output)
    : state_(std::make_unique<State>(State{config, rope, {}, {}, {}, {}})) {
  const uint32_t d = config.head_dim;
  const Eigen::Map<const Matrix> weight(output.data(), config.hidden, config.q_heads * d);
  for (uint32_t h = 0; h < config.q_heads; ++h) {
    const Matrix part = weight.middleCols(h * d, d);
    state_->metrics.emplace_back(part.transpose() * part);
    state_->prices.emplace_back(Wide::Zero(d, d));
  }
  for (uint32_t g = 0; g < config.kv_heads; ++g) {
    state_->keys.emplace_back(d);
    state_->values.emplace_back(d);
  }
}

MomentCollector::~MomentCollector() = default;
MomentCollector::MomentCollector(MomentCollector&&) noexcept = default;

// Over queries t and keys s of the window: p^2 |W_o (v_s - o_t)|^2 q q^T, with q turned to the
// frame of the key's block. That is the squared change of the layer's output by a change of the
// key, to first order: d o_t = sum over s of p (v_s - o_t) (q . dk_s).
void MomentCollector::State::AddPrice(uint32_t head, MatrixView qkv, MatrixView attention,
                                      const Matrix& turned_keys, uint32_t first_query) {
  const uint32_t d = config.head_dim;
  const uint32_t kv_head = head / (config.q_heads / config.kv_heads);
  const uint32_t tokens = qkv.rows;
  std::vector<uint32_t> at;
  for (uint32_t t = kSinkTokens + first_query % kQueryStride; t < tokens; t += kQueryStride) {
    at.push_back(t);
  }
  const auto count = static_cast<Eigen::Index>(at.size());
  if (count == 0) return;
  const Strided queries = Columns(qkv, head * d, d);
  const Strided v = Columns(qkv, (config.q_heads + config.kv_heads + kv_head) * d, d);
  const Strided outputs = Columns(attention, head * d, d);
  Matrix q(count, d), o(count, d);
  for (Eigen::Index i = 0; i < count; ++i) {
    q.row(i) = queries.row(at[static_cast<size_t>(i)]);
    o.row(i) = outputs.row(at[static_cast<size_t>(i)]);
  }
  Matrix turned = q;
  for (Eigen::Index i = 0; i < count; ++i) {
    Turn(turned.row(i).data(), rope, at[static_cast<size_t>(i)]);
  }
  const auto scale =
      static_cast<float>(RopeAttentionFactor(config.rope) / std::sqrt(double{1} * d));
  Matrix weights = turned * turned_keys.transpose() * scale;  // [queries, tokens]
  const Matrix& metric = metrics[head];
  const Matrix o_metric = o * metric;
  const Eigen::VectorXf value_size = (v * metric).cwiseProduct(v).rowwise().sum();
  const Eigen::VectorXf output_size = o_metric.cwiseProduct(o).rowwise().sum();
  const Matrix cross = o_metric * v.transpose();
  for (Eigen::Index i = 0; i < count; ++i) {
    const auto seen = static_cast<Eigen::Index>(at[static_cast<size_t>(i)]) + 1;
    auto row = weights.row(i).head(seen);
    row = (row.array() - row.maxCoeff()).exp();
    row /= row.sum();
    const Eigen::Array<float, 1, Eigen::Dynamic> gap =
        (value_size.head(seen).transpose() - 2 * cross.row(i).head(seen)).array() + output_size(i);
    row = row.array().square() * gap.max(0.0f);
    row.head(kSinkTokens).setZero();
    weights.row(i).tail(tokens - seen).setZero();
  }
  for (uint32_t first = 0; first < tokens; first += kBlockTokens) {
    const Eigen::Index block = std::min(kBlockTokens, tokens - first);
    const Eigen::VectorXf share = weights.middleCols(first, block).rowwise().sum();
    Matrix seen = q;
    for (Eigen::Index i = 0; i < count; ++i) {
      const uint32_t t = at[static_cast<size_t>(i)];
      if (t >= first) Turn(seen.row(i).data(), rope, t - first);
      seen.row(i) *= std::sqrt(std::max(0.0f, share(i)));
    }
    prices[head] += (seen.transpose() * seen).cast<double>();
  }
}

void MomentCollector::Add(MatrixView qkv, MatrixView attention, uint32_t first_query,
                          ThreadPool& pool) {
  State& s = *state_;
  const uint32_t d = s.config.head_dim, group = s.config.q_heads / s.config.kv_heads;
  CHECK(qkv.rows > kSinkTokens && qkv.rows <= s.rope.positions) << qkv.rows << " tokens";
  std::vector<Matrix> turned(s.config.kv_heads);  // keys at their absolute positions
  pool.ParallelFor(s.config.kv_heads, [&](uint32_t g, unsigned) {
    turned[g] = Columns(qkv, (s.config.q_heads + g) * d, d);
    Matrix stored = turned[g];
    for (uint32_t t = 0; t < qkv.rows; ++t) {
      Turn(turned[g].row(t).data(), s.rope, t);
      Turn(stored.row(t).data(), s.rope, t % kBlockTokens);
    }
    s.keys[g].Add(stored);
    s.values[g].Add(Columns(qkv, (s.config.q_heads + s.config.kv_heads + g) * d, d));
  });
  pool.ParallelFor(s.config.q_heads, [&](uint32_t h, unsigned) {
    s.AddPrice(h, qkv, attention, turned[h / group], first_query);
  });
}

std::vector<MomentCollector::Head> MomentCollector::Finish() const {
  const State& s = *state_;
  const uint32_t group = s.config.q_heads / s.config.kv_heads;
  std::vector<Head> heads(s.config.kv_heads);
  for (uint32_t g = 0; g < s.config.kv_heads; ++g) {
    CHECK(s.keys[g].rows > 0) << "no window was added";
    s.keys[g].Finish(&heads[g].key);
    s.values[g].Finish(&heads[g].value);
    Wide key_price = s.prices[g * group];
    Wide value_price = s.metrics[g * group].cast<double>();
    for (uint32_t h = g * group + 1; h < (g + 1) * group; ++h) {
      key_price += s.prices[h];
      value_price += s.metrics[h].cast<double>();
    }
    Store(key_price, &heads[g].key.price);
    Store(value_price, &heads[g].value.price);
  }
  return heads;
}

}  // namespace corpusd
