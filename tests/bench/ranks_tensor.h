// tests/bench/ranks_tensor.h -- what ranks_bench measures of weights that several devices share.
// For programs: an error ends them.
#pragma once

#include <cstdint>

namespace corpusd {

// `layers` of Scout's with random weights of 4 bits, embedding and head in bfloat16: a prefill of
// `rows` tokens and single tokens behind it, on one device and on `devices`, their logits compared
// bit for bit; memory; the same exchanges with nothing else. rows: at least 640. Prints one JSON
// object a line. vocabulary: of embedding and head, which take most of the time to load; 0:
// Scout's.
void MeasureTensor(uint32_t layers, uint32_t rows, uint32_t vocabulary, uint32_t devices);

}  // namespace corpusd
