// make_tiny_model OUT.gguf [--seed N] [--context N] [--head-dim N] [--hidden N] [--feed-forward N]:
// see tiny_model.h.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/support/tiny_model.h"

int main(int argc, char** argv) {
  std::string out;
  corpusd::TinyModelOptions options;
  bool understood = argc > 1;
  for (int i = 1; i < argc && understood; ++i) {
    const std::string argument = argv[i];
    if (argument == "--seed" || argument == "--context" || argument == "--head-dim" ||
        argument == "--hidden" || argument == "--feed-forward") {
      char* end = nullptr;
      const uint64_t number = i + 1 < argc ? std::strtoull(argv[i + 1], &end, 10) : 0;
      understood = end != nullptr && end != argv[i + 1] && *end == '\0';
      if (argument == "--seed") options.seed = number;
      if (argument == "--head-dim") options.head_dim = static_cast<uint32_t>(number);
      if (argument == "--hidden") options.hidden = static_cast<uint32_t>(number);
      if (argument == "--feed-forward") options.feed_forward = static_cast<uint32_t>(number);
      if (argument == "--context") options.context_tokens = static_cast<uint32_t>(number);
      ++i;
    } else {
      understood = out.empty() && argument[0] != '-';
      out = argument;
    }
  }
  if (!understood || out.empty()) {
    std::fputs(
        "usage: make_tiny_model OUT.gguf [--seed N] [--context N] [--head-dim N] [--hidden N]\n"
        "       [--feed-forward N]\n",
        stderr);
    return 2;
  }
  corpusd::WriteTinyModel(out, options);
  return 0;
}
