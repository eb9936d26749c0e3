#include "engine/retrieval/case_folding.h"

namespace corpusd {
namespace {

bool Within(uint32_t c, uint32_t first, uint32_t last) { return c >= first && c <= last; }

// Blocks whose upper and lower letters take turns: the upper ones are even, or odd.
bool HasEvenCapitals(uint32_t c) {
  return Within(c, 0x100, 0x12f) || Within(c, 0x132, 0x137) || Within(c, 0x14a, 0x177) ||
         Within(c, 0x1de, 0x1ef) || Within(c, 0x1f8, 0x21f) || Within(c, 0x222, 0x233) ||
         Within(c, 0x3d8, 0x3ef) || Within(c, 0x460, 0x481) || Within(c, 0x48a, 0x4bf) ||
         Within(c, 0x4d0, 0x52f) || Within(c, 0x1e00, 0x1e95) || Within(c, 0x1ea0, 0x1eff);
}
bool HasOddCapitals(uint32_t c) {
  return Within(c, 0x139, 0x148) || Within(c, 0x179, 0x17e) || Within(c, 0x1cd, 0x1dc) ||
         Within(c, 0x4c1, 0x4ce);
}

uint32_t FoldGreek(uint32_t c) {
  if (Within(c, 0x391, 0x3ab)) return c + 0x20;
  if (c == 0x386) return 0x3ac;
  if (Within(c, 0x388, 0x38a)) return c + 0x25;
  if (c == 0x38c) return 0x3cc;
  if (c == 0x38e || c == 0x38f) return c + 0x3f;
  return c == 0x3c2 ? 0x3c3 : c;  // the final sigma
}

}  // namespace

uint32_t FoldCase(uint32_t c) {
  if (c < 0x80) return Within(c, 'A', 'Z') ? c + 0x20 : c;
  if (Within(c, 0xc0, 0xde) && c != 0xd7) return c + 0x20;
  if (c == 0x178) return 0xff;
  if (HasEvenCapitals(c)) return c | 1;
  if (HasOddCapitals(c)) return c + (c & 1);
  if (Within(c, 0x370, 0x3ff)) return FoldGreek(c);
  if (Within(c, 0x400, 0x40f)) return c + 0x50;
  if (Within(c, 0x410, 0x42f)) return c + 0x20;
  if (Within(c, 0x531, 0x556)) return c + 0x30;
  if (Within(c, 0xff21, 0xff3a)) return c + 0x20;
  return c;
}

}  // namespace corpusd
