#include "tests/support/hashed_checkpoint.h"

#include <bit>
#include <fstream>
#include <numeric>
#include <sstream>

#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"
#include "tests/support/safetensors_writer.h"

namespace corpusd {
namespace {

uint64_t NameSeed(const std::string& name, uint64_t seed) {
  uint64_t value = 0xcbf29ce484222325;  // FNV-1a, 64 bits
  for (const char c : name) value = (value ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return value + seed;
}

// Exact in all three types, as make_families.py says.
float NumberAt(uint64_t seed, uint64_t place, double scale, double offset) {
  uint64_t z = seed + (place + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z = z ^ (z >> 31);
  const auto k = static_cast<double>(z >> 56) - 128;
  return static_cast<float>(offset + scale * k / 128);
}

// REQUIRES: 0, or a normal binary16 that needs no rounding.
uint16_t ExactHalf(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  if (value == 0) return static_cast<uint16_t>(sign);
  CHECK((bits & 0x1fff) == 0) << value;
  return static_cast<uint16_t>(sign | (((bits >> 23) & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff));
}

void AppendNumber(float value, const std::string& dtype, std::string* data) {
  if (dtype == "F32") {
    data->append(reinterpret_cast<const char*>(&value), sizeof value);
    return;
  }
  const uint16_t half = dtype == "BF16" ? Bf16FromFloat(value) : ExactHalf(value);
  CHECK(dtype != "BF16" || FloatFromBf16(half) == value) << value;
  data->append(reinterpret_cast<const char*>(&half), sizeof half);
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  CHECK(!file.fail()) << path << " cannot be written";
}

}  // namespace

std::vector<FamilyCase> ReadFamilyCases(const std::string& path) {
  std::ifstream file(path);
  CHECK(file.good()) << path << " cannot be read";
  std::vector<FamilyCase> cases;
  for (std::string line; std::getline(file, line);) {
    FamilyCase c;
    c.record = nlohmann::json::parse(line);
    c.name = c.record["name"].get<std::string>();
    c.ids = c.record["ids"].get<std::vector<uint32_t>>();
    c.logits = c.record["logits"].get<std::vector<std::vector<float>>>();
    c.record.erase("logits");
    c.borders = c.record.value("borders", std::vector<uint32_t>());
    c.positions = c.record.value("positions", std::vector<uint32_t>());
    if (c.positions.empty()) {
      c.positions.resize(c.ids.size());
      std::iota(c.positions.begin(), c.positions.end(), 0);
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

void WriteCheckpoint(const FamilyCase& family_case, const std::string& folder) {
  const nlohmann::json& record = family_case.record;
  const auto dtype = record["dtype"].get<std::string>();
  const auto shards = record["shards"].get<size_t>();
  const auto seed = record["seed"].get<uint64_t>();
  WriteFile(folder + "/config.json", record["config"].dump());
  std::vector<SafetensorsWriter> writers(shards);
  nlohmann::json map = nlohmann::json::object();
  const auto shard_name = [&](size_t shard) {
    if (shards == 1) return std::string("model.safetensors");
    return "model-" + std::to_string(shard + 1) + "-of-" + std::to_string(shards) + ".safetensors";
  };
  size_t next = 0;
  for (const nlohmann::json& tensor : record["tensors"]) {
    const auto name = tensor[0].get<std::string>();
    const auto shape = tensor[1].get<std::vector<uint64_t>>();
    uint64_t count = 1;
    for (const uint64_t dim : shape) count *= dim;
    std::string data;
    for (uint64_t i = 0; i < count; ++i) {
      AppendNumber(
          NumberAt(NameSeed(name, seed), i, tensor[2].get<double>(), tensor[3].get<double>()),
          dtype, &data);
    }
    const std::string stored = record["prefix"].get<std::string>() + name;
    writers[next % shards].Add(stored, dtype, shape, data);
    map[stored] = shard_name(next++ % shards);
  }
  for (size_t i = 0; i < shards; ++i) WriteFile(folder + "/" + shard_name(i), writers[i].Finish());
  if (shards > 1) {
    WriteFile(folder + "/model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
  }
}

}  // namespace corpusd
