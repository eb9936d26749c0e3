// engine/model/checkpoint_folder.h -- a model folder as Hugging Face lays it out: config.json, the
// weights in one safetensors file or in the shards that an index names. Finds tensors by name,
// wherever they lie. Knows nothing of architectures. Immutable after Open; any thread. Owns the
// mappings: tensors must not outlive the object.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/model/safetensors.h"
#include "store/base/result.h"

namespace corpusd {

// The bytes of a small text file. kInvalidArgument if it is longer than bytes_max.
Result<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max);
// A JSON file of at most bytes_max bytes, whose top is an object.
Result<nlohmann::json> ReadJsonFile(const std::string& path, uint64_t bytes_max);

class CheckpointFolder {
 public:
  // kNotFound if the folder, its config.json or its weights are missing; kInvalidArgument,
  // kUnimplemented or kIoError, naming the file, if one of them is malformed.
  static Result<std::unique_ptr<CheckpointFolder>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const nlohmann::json& config() const { return config_; }
  // RETURNS nullptr if there is none of that name.
  const SafeTensor* Find(std::string_view name) const;
  // By name.
  std::span<const std::unique_ptr<SafetensorsFile>> shards() const { return shards_; }
  // SHA-256 over the names and digests of all weight files, 64 hexadecimal digits. cache_dir and
  // errors as in FileDigestHex.
  Result<std::string> WeightsDigestHex(const std::string& cache_dir) const;

 private:
  explicit CheckpointFolder(std::string path) : path_(std::move(path)) {}
  Status OpenIndexed(const std::string& index_path);
  Status OpenShard(const std::string& name);

  const std::string path_;
  nlohmann::json config_;
  std::vector<std::string> shard_names_;  // sorted
  std::vector<std::unique_ptr<SafetensorsFile>> shards_;
  std::unordered_map<std::string_view, const SafeTensor*> tensors_;
};

}  // namespace corpusd
