#include "kernels/reference/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/weight_types.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

constexpr uint32_t kTypes[] = {0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30};

struct GoldenRow {
  std::vector<std::byte> bytes;
  std::vector<float> values;
};

std::vector<std::byte> FromHex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// By type name; see make_dequantize.py.
std::map<std::string, GoldenRow> ReadGolden() {
  std::map<std::string, GoldenRow> rows;
  std::istringstream file(ReadWholeFile(GoldenPath("dequantize.txt")));
  std::string name, bytes, values;
  size_t elements = 0;
  while (file >> name >> elements >> bytes >> values) {
    GoldenRow& row = rows[name];
    row.bytes = FromHex(bytes);
    const std::vector<std::byte> raw = FromHex(values);
    row.values.resize(elements);
    EXPECT_EQ(raw.size(), elements * sizeof(float)) << name;
    std::memcpy(row.values.data(), raw.data(), elements * sizeof(float));
  }
  return rows;
}

TEST(Dequantize, EveryTypeEqualsTheReferencePackage) {
  const auto golden = ReadGolden();
  for (const uint32_t type : kTypes) {
    const WeightTypeInfo* const info = FindWeightType(type);
    ASSERT_NE(info, nullptr) << type;
    SCOPED_TRACE(std::string(info->name));
    ASSERT_TRUE(golden.contains(std::string(info->name)));
    const GoldenRow& row = golden.at(std::string(info->name));
    const auto cols = static_cast<uint32_t>(row.values.size());
    ASSERT_EQ(WeightRowBytes(static_cast<WeightType>(type), cols), row.bytes.size());
    // One byte off alignment, as rows in files may be.
    std::vector<std::byte> shifted(row.bytes.size() + 1);
    std::memcpy(shifted.data() + 1, row.bytes.data(), row.bytes.size());
    std::vector<float> out(cols + 1, 12345.0F);
    DequantizeRow(static_cast<WeightType>(type), shifted.data() + 1, out.data(), cols);
    for (uint32_t i = 0; i < cols; ++i) ASSERT_EQ(out[i], row.values[i]) << "element " << i;
    EXPECT_EQ(out[cols], 12345.0F) << "wrote beyond the row";
  }
}

TEST(Dequantize, HalfToFloatIsExactForAllFiniteNumbers) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const uint32_t exponent = (half >> 10) & 31;
    const uint32_t mantissa = half & 1023;
    const float actual = HalfToFloat(static_cast<uint16_t>(half));
    EXPECT_EQ(std::signbit(actual), (half & 0x8000) != 0) << half;
    if (exponent == 31) {
      EXPECT_EQ(std::isnan(actual), mantissa != 0) << half;
      EXPECT_EQ(std::isinf(actual), mantissa == 0) << half;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, int(exponent) - 25);
    EXPECT_EQ(std::fabs(actual), magnitude) << half;
  }
}

TEST(WeightTypes, UnknownNumbersAreRefused) {
  for (const uint32_t type : {4U, 5U, 9U, 10U, 11U, 15U, 29U, 31U, 39U, 0xffffffffU}) {
    EXPECT_EQ(FindWeightType(type), nullptr) << type;
  }
}

}  // namespace
}  // namespace corpusd
