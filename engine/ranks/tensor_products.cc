// What TensorDevices does of a model's products: which columns each device computes, and what they
// exchange when.
#include <utility>

#include "engine/ranks/tensor_devices.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// All of a row's outputs of a device, in one piece at the begin of the memory that all would take.
MatrixView Compact(MatrixView m, uint32_t cols) { return {m.data, m.rows, cols, cols}; }

}  // namespace

void TensorDevices::Settle() {
  if (const SharedExpert shared = std::exchange(shared_, {}); shared.weight != nullptr) {
    MultiplyJoined(shared.out, unjoined_, *shared.weight, shared.accumulate);
  }
  for (MatrixView* const parts : {&unjoined_, &pending_}) {
    if (parts->data == nullptr) continue;
    OnAll([](TensorMember& member, MatrixView m) { member.JoinColumns(m); },
          std::exchange(*parts, {}));
  }
}

void TensorDevices::MultiplyJoined(MatrixView out, MatrixView x, const PartedWeight& weight,
                                   bool accumulate) {
  const bool joins = x.data == unjoined_.data;
  const PartedWeight* const parted = &weight;
  OnAll(
      [=](TensorMember& member, MatrixView to, MatrixView from) {
        if (joins) member.JoinColumns(from);
        member.backend().MatMul(member.OwnColumns(to), from, parted->part(member.rank()),
                                accumulate);
      },
      out, x);
  unjoined_ = {};
  pending_ = out;
}

void TensorDevices::Activate(MatrixView out, MatrixView gate_up, bool gelu) {
  if (!ok()) return;
  Settle();
  const bool parted = gate_up.data == parted_;
  const auto activate = [=](TensorMember& member, MatrixView to, MatrixView from) {
    gelu ? member.backend().GeGlu(to, from) : member.backend().SwiGlu(to, from);
  };
  if (!parted) return Everywhere(activate, out, gate_up);
  parted_ = nullptr;
  OnAll(
      [activate, devices = count()](TensorMember& member, MatrixView to, MatrixView from) {
        activate(member, member.OwnColumns(to), Compact(from, from.cols / devices));
      },
      out, gate_up);
  unjoined_ = out;
}

void TensorDevices::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  const PartedWeight& w = Parted(weight);
  CHECK(x.cols == w.cols() && out.cols == w.rows() && out.rows == x.rows)
      << x.cols << " inputs of " << w.cols();
  if (!ok() || x.rows == 0) return;
  const bool joined = w.use() == PartedUse::kJoined || w.use() == PartedUse::kShared;
  const bool apart = joined ? x.data == unjoined_.data && pending_.data == nullptr
                            : w.use() == PartedUse::kWhole && !IsPending(x) && !IsPending(out);
  if (!apart) Settle();
  const PartedWeight* const parted = &w;
  switch (w.use()) {
    case PartedUse::kWhole:
      return OnAll(
          [=](TensorMember& member, MatrixView to, MatrixView from) {
            member.backend().MatMul(to, from, parted->part(member.rank()), accumulate);
          },
          out, x);
    case PartedUse::kVocabulary:
    case PartedUse::kToFirst:
      CHECK(!accumulate) << "a product that goes to the first device";
      return MatMulToFirst(out, x, w);
    case PartedUse::kInner:
      parted_ = out.data;
      return OnAll(
          [=](TensorMember& member, MatrixView to, MatrixView from) {
            const Weight& part = parted->part(member.rank());
            member.backend().MatMul(Compact(to, part.rows()), from, part, accumulate);
          },
          out, x);
    case PartedUse::kFromFirst:
      OnAll(
          [=](TensorMember& member, MatrixView to, MatrixView from) {
            member.FromFirst(from);
            member.backend().MatMul(member.OwnColumns(to), from, parted->part(member.rank()),
                                    accumulate);
          },
          out, x);
      pending_ = out;
      return;
    case PartedUse::kShared:
      if (unjoined_.data != nullptr) {  // with the mixture
        shared_ = {out, parted, accumulate};
        return;
      }
      [[fallthrough]];
    case PartedUse::kJoined:
      return MultiplyJoined(out, x, w, accumulate);
    case PartedUse::kExpertInner:
    case PartedUse::kExpertJoined:
      CHECK(false) << "the product of an expert";
  }
}

void TensorDevices::MatMulToFirst(MatrixView out, MatrixView x, const PartedWeight& weight) {
  uint64_t outputs = 0;
  for (uint32_t d = 0; d < count(); ++d) outputs += weight.part(d).rows();
  status_ = Reserve(x.rows * outputs * sizeof(float));
  if (!ok()) return;
  LeaveWithFirst(out);
  const PartedWeight* const parted = &weight;
  OnAll(
      [out, parted](TensorMember& member, MatrixView from) { member.ToFirst(out, from, *parted); },
      x);
}

const TensorDevices::ExpertLists* TensorDevices::ListsOf(uint32_t device,
                                                         std::span<const Expert> experts) {
  ExpertLists& lists = experts_[{device, experts.data()}];
  const auto part = [&](const std::unique_ptr<Weight>& weight) {
    return &Parted(*weight).part(device);
  };
  const bool known = lists.gate_up.size() == experts.size() &&
                     lists.gate_up.front() == part(experts.front().gate_up);
  if (known) return &lists;
  if (device > 0) others_[device - 1]->queue->Await();  // it may still need the old ones
  lists = {};
  for (const Expert& expert : experts) {
    lists.gate_up.push_back(part(expert.gate_up));
    lists.down.push_back(part(expert.down));
  }
  return &lists;
}

// What devices exchange of the mixture and of the shared expert before it goes in one.
void TensorDevices::MixExperts(MatrixView out, const ExpertInput& input) {
  if (!ok() || input.x.rows == 0) return;
  const uint32_t rows = input.x.rows, inner = Parted(*input.experts.front().down).cols();
  const uint64_t exchanged = uint64_t{rows} * (uint64_t{input.used} * inner + unjoined_.cols);
  status_ = Reserve(exchanged * sizeof(float));
  if (!ok()) return;
  if (IsPending(input.x) || IsPending(input.logits) || shared_.out.data != out.data) Settle();
  const bool together = shared_.weight != nullptr;
  std::array<const ExpertLists*, kDevicesMax> lists{};
  for (uint32_t d = 0; d < count(); ++d) lists[d] = ListsOf(d, input.experts);
  // The shared expert's inner numbers are still where those of the mixture would be: these go
  // behind the gates and ups, of which a device has no more than half.
  const MatrixView activated{input.gate_up.data + uint64_t{rows} * inner, rows, inner, inner};
  const MatrixView joined = together ? std::exchange(unjoined_, {}) : input.activated;
  const SharedExpert shared = std::exchange(shared_, {});
  const uint32_t own = inner / count(), used = input.used;
  OnAll(
      [=](TensorMember& member, MatrixView to, MatrixView x, MatrixView logits, MatrixView gate_up,
          MatrixView inner_numbers, MatrixView of_shared) {
        ExpertParts parts;
        parts.input = {x, logits, {}, used, {}, {}, gate_up, inner_numbers};
        parts.gate_up = lists[member.rank()]->gate_up;
        parts.down = lists[member.rank()]->down;
        parts.first = member.rank() * own;
        const std::array both = {member.ops().RaiseExperts(parts), of_shared};
        member.JoinColumns(std::span(both).first(shared.weight == nullptr ? 1 : 2));
        if (shared.weight != nullptr) {
          member.backend().MatMul(member.OwnColumns(to), of_shared,
                                  shared.weight->part(member.rank()), shared.accumulate);
        }
        member.ops().LowerExperts(member.OwnColumns(to), parts);
      },
      out, input.x, input.logits, input.gate_up, activated, joined);
  pending_ = out;
}

}  // namespace corpusd
