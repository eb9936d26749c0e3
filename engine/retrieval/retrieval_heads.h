#pragma once
#include <cstdint>
namespace corpusd {
struct RetrievalHead {
  uint32_t layer = 0;
  uint32_t q_head = 0;
};
}  // namespace corpusd
