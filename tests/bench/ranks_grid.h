// tests/bench/ranks_grid.h -- what ranks_bench measures of a grid: two ranks of a text, each of
// which shares its weights with another device. For programs: an error ends them.
#pragma once

#include <cstdint>

namespace corpusd {

// The engine's prefill (ranked_prefill.h) of an exact text of so many tokens by `layers` of Scout's
// with random weights, bfloat16 pages: by one device, by two ranks of a device each, and by two
// ranks of two, whose pages must be those of the two. vocabulary: of embedding and head; 0:
// Scout's. Needs four devices. Prints one JSON object.
void MeasureGrid(uint32_t layers, uint32_t tokens, uint32_t vocabulary);

}  // namespace corpusd
