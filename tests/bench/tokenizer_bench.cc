// tokenizer_bench [--model FILE.gguf] [--seconds S] [--smoke] TEXT...: how fast one thread encodes
// the given files, as JSON, beside the speed of a byte scan of the same memory in the same run.
// --smoke encodes a little made-up text with a tiny made-up vocabulary, to see that the bench
// works.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/tokenizer/streaming_encoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

struct Options {
  std::string model = TestModelPath();
  double seconds = 2;
  bool smoke = false;
  std::vector<std::string> texts;
};

// Of this thread, so that other work on the machine counts less.
double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Speed {
  double median_mb_per_s = 0, best_mb_per_s = 0;
};

Speed Measure(size_t bytes, double seconds, const std::function<void()>& work) {
  std::vector<double> speeds;
  const double until = CpuSeconds() + seconds;
  do {
    const double start = CpuSeconds();
    work();
    speeds.push_back(static_cast<double>(bytes) * 1e-6 / std::max(CpuSeconds() - start, 1e-9));
  } while (CpuSeconds() < until || speeds.size() < 3);
  std::sort(speeds.begin(), speeds.end());
  return {speeds[speeds.size() / 2], speeds.back()};
}

bool ParseOptions(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--smoke") {
      options->smoke = true;
    } else if (argument == "--model" && i + 1 < argc) {
      options->model = argv[++i];
    } else if (argument == "--seconds" && i + 1 < argc) {
      options->seconds = std::atof(argv[++i]);
    } else if (argument.starts_with("--")) {
      return false;
    } else {
      options->texts.emplace_back(argument);
    }
  }
  return options->smoke || !options->texts.empty();
}

void BenchText(const Tokenizer& tokenizer, const std::string& name, const std::string& text,
               double seconds) {
  std::vector<TokenId> ids;
  ids.reserve(text.size());
  const Speed encode = Measure(text.size(), seconds, [&] {
    ids.clear();
    StreamingEncoder encoder(tokenizer);
    encoder.Append(text, &ids);
    encoder.Finish(&ids);
  });
  // The least that any tokenizer does: look at every byte once, here to count the line ends.
  volatile size_t lines = 0;
  const Speed scan = Measure(text.size(), std::min(seconds, 0.5), [&] {
    lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  });
  std::printf(
      "{\"bench\": \"tokenizer\", \"text\": \"%s\", \"bytes\": %zu, \"tokens\": %zu, "
      "\"encode_mb_per_s\": %.1f, \"encode_best_mb_per_s\": %.1f, \"scan_mb_per_s\": %.0f, "
      "\"share_of_scan\": %.4f}\n",
      name.c_str(), text.size(), ids.size(), encode.median_mb_per_s, encode.best_mb_per_s,
      scan.median_mb_per_s, encode.median_mb_per_s / scan.median_mb_per_s);
}

int Run(Options options) {
  const TempDir dir;
  if (options.smoke) {
    options.model = dir.File("tiny.gguf");
    options.seconds = 0.05;
    WriteTinyModel(options.model);
  }
  auto file = GgufFile::Open(options.model);
  if (!file.ok()) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", file.status().message().c_str());
    return 1;
  }
  auto tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", tokenizer.status().message().c_str());
    return 1;
  }
  if (options.smoke) {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "the thing in\nthe other one's " + std::to_string(i);
    BenchText(**tokenizer, "made-up", text, options.seconds);
  }
  for (const std::string& path : options.texts) {
    BenchText(**tokenizer, path.substr(path.find_last_of('/') + 1), ReadWholeFile(path),
              options.seconds);
  }
  return 0;
}

}  // namespace
}  // namespace corpusd

int main(int argc, char** argv) {
  corpusd::Options options;
  if (!corpusd::ParseOptions(argc, argv, &options)) {
    std::fputs("usage: tokenizer_bench [--model FILE.gguf] [--seconds S] [--smoke] TEXT...\n",
               stderr);
    return 2;
  }
  return corpusd::Run(std::move(options));
}
