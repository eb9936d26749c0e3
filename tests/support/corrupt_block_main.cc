// corrupt_block DATA_DIR CORPUS BLOCK [PAYLOAD_BYTE]: damages one stored block, for integration
// tests that restart a daemon on it.
#include <cstdio>
#include <cstdlib>

#include "tests/support/corrupt_block.h"

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "usage: %s DATA_DIR CORPUS BLOCK [PAYLOAD_BYTE]\n", argv[0]);
    return 2;
  }
  const uint64_t payload_byte = argc == 5 ? std::strtoull(argv[4], nullptr, 10) : 0;
  const corpusd::Status status =
      corpusd::CorruptBlock(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10), payload_byte);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
