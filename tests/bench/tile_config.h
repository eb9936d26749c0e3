// tests/bench/tile_config.h -- eight whole tiles for _tile_loadconfig, in the layout of the Intel
// SDM's LDTILECFG. For benches that measure the instructions themselves.
#pragma once

#include <cstdint>

namespace corpusd {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

}  // namespace corpusd
