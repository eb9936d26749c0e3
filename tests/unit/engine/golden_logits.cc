#include "tests/unit/engine/golden_logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/model.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

struct Golden {
  std::vector<TokenId> ids;
  std::vector<std::pair<uint32_t, std::vector<float>>> rows;  // position, every 512th logit
};

Golden ReadGolden() {
  Golden golden;
  std::ifstream file(GoldenPath("logits_smollm2.txt"));
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first == "#" || first.empty()) continue;
    if (first == "ids") {
      for (TokenId id = 0; words >> id;) golden.ids.push_back(id);
    } else {
      golden.rows.emplace_back(std::stoul(first), std::vector<float>());
      for (float value = 0; words >> value;) golden.rows.back().second.push_back(value);
    }
  }
  return golden;
}

}  // namespace

double LargestDifferenceFromGolden(Backend& backend, const std::string& kv_format) {
  const auto file = GgufFile::Open(TestModelPath());
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  const auto model = LoadLlamaModel(**file, backend);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  const Golden golden = ReadGolden();
  EXPECT_EQ(golden.ids.size(), 160u);
  EXPECT_EQ(golden.rows.size(), 7u);
  const KvFormat format = *(*model)->Format(kv_format);
  KvSequence kv(format, format);
  const auto scratch = ForwardScratch::Create(backend, (*model)->config(), 160);
  EXPECT_TRUE((*model)->Forward(golden.ids, kv, **scratch, [] { return true; }).ok());
  const auto logits = backend.AllocateShared((*model)->config().vocabulary * 4, "logits");
  double largest = 0;
  for (const auto& [position, expected] : golden.rows) {
    const MatrixView row = (*logits)->Matrix(1, (*model)->config().vocabulary);
    EXPECT_TRUE((*model)->Logits(**scratch, position, row).ok());
    EXPECT_EQ(expected.size(), row.cols / 512);
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(double{row.data[i * 512]} - expected[i]));
    }
  }
  return largest;
}

}  // namespace corpusd
