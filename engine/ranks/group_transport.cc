#include "engine/ranks/group_transport.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {

GroupTransport::GroupTransport(Transport& whole, std::vector<uint32_t> members)
    : whole_(whole), members_(std::move(members)) {
  const auto own = std::find(members_.begin(), members_.end(), whole_.rank());
  CHECK(own != members_.end()) << whole_.NameOf(whole_.rank()) << " is in no group of others";
  rank_ = static_cast<uint32_t>(own - members_.begin());
}

std::vector<uint32_t> TensorGroupOf(const Transport& whole, uint32_t tensor_ranks) {
  CHECK(tensor_ranks > 0 && whole.size() % tensor_ranks == 0) << tensor_ranks;
  std::vector<uint32_t> members;
  const uint32_t first = whole.rank() / tensor_ranks * tensor_ranks;
  for (uint32_t i = 0; i < tensor_ranks; ++i) members.push_back(first + i);
  return members;
}

std::vector<uint32_t> TextGroupOf(const Transport& whole, uint32_t tensor_ranks) {
  CHECK(tensor_ranks > 0 && whole.size() % tensor_ranks == 0) << tensor_ranks;
  std::vector<uint32_t> members;
  for (uint32_t r = whole.rank() % tensor_ranks; r < whole.size(); r += tensor_ranks) {
    members.push_back(r);
  }
  return members;
}

}  // namespace corpusd
