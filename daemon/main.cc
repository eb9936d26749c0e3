#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "daemon/run.h"

int main(int argc, char** argv) {
  try {
    return corpusd::RunCorpusd(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "corpusd: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
