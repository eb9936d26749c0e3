#include "engine/model/checkpoint_folder.h"

#include <filesystem>
#include <set>

#include "engine/model/file_digest.h"
#include "engine/model/json_text.h"
#include "engine/model/mapped_file.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr uint64_t kConfigBytesMax = uint64_t{1} << 20;
constexpr uint64_t kIndexBytesMax = uint64_t{64} << 20;
constexpr size_t kShardsMax = 4096;
constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// A name that stays inside the folder.
bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

Result<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max) {
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  if (file->bytes().size() > bytes_max) {
    return InvalidArgumentError(path + ": has " + std::to_string(file->bytes().size()) +
                                " bytes, more than the " + std::to_string(bytes_max) +
                                " that such a file may have");
  }
  return std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
}

Result<nlohmann::json> ReadJsonFile(const std::string& path, uint64_t bytes_max) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, bytes_max));
  return ParseJsonObject(text, path);
}

Result<std::unique_ptr<CheckpointFolder>> CheckpointFolder::Open(const std::string& path) {
  std::unique_ptr<CheckpointFolder> folder;
  folder.reset(new CheckpointFolder(path));
  ASSIGN_OR_RETURN(folder->config_, ReadJsonFile(path + "/config.json", kConfigBytesMax));
  const std::string index_path = path + "/" + std::string(kIndexFile);
  if (Exists(index_path)) {
    RETURN_IF_ERROR(folder->OpenIndexed(index_path));
  } else if (Exists(path + "/" + std::string(kSingleFile))) {
    RETURN_IF_ERROR(folder->OpenShard(std::string(kSingleFile)));
  } else {
    return NotFoundError(path + ": has neither " + std::string(kSingleFile) + " nor " +
                         std::string(kIndexFile) + ": other weight files are not read");
  }
  return folder;
}

Status CheckpointFolder::OpenShard(const std::string& name) {
  ASSIGN_OR_RETURN(auto shard, SafetensorsFile::Open(path_ + "/" + name));
  for (const SafeTensor& tensor : shard->tensors()) {
    if (tensors_.emplace(tensor.name, &tensor).second) continue;
    return InvalidArgumentError(shard->path() + ": tensor '" + tensor.name +
                                "' is in another shard, too");
  }
  shard_names_.push_back(name);
  shards_.push_back(std::move(shard));
  return OkStatus();
}

Status CheckpointFolder::OpenIndexed(const std::string& index_path) {
  ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(index_path, kIndexBytesMax));
  const nlohmann::json* const map = FindMember(index, "weight_map");
  if (map == nullptr || !map->is_object() || map->empty()) {
    return InvalidArgumentError(index_path + ": has no weight_map");
  }
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !IsPlainName(shard.get_ref<const std::string&>())) {
      return InvalidArgumentError(index_path + ": the shard of '" + tensor +
                                  "' is not a file name");
    }
    names.insert(shard.get<std::string>());
  }
  if (names.size() > kShardsMax) {
    return InvalidArgumentError(index_path + ": names " + std::to_string(names.size()) +
                                " shards, beyond " + std::to_string(kShardsMax));
  }
  for (const std::string& name : names) RETURN_IF_ERROR(OpenShard(name));
  for (const auto& [tensor, shard] : map->items()) {
    if (tensors_.contains(tensor)) continue;
    return InvalidArgumentError(path_ + "/" + shard.get<std::string>() + ": lacks tensor '" +
                                tensor + "' that the index says it has");
  }
  return OkStatus();
}

const SafeTensor* CheckpointFolder::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second;
}

Result<std::string> CheckpointFolder::WeightsDigestHex(const std::string& cache_dir) const {
  Sha256 hash;
  hash.Update(std::string_view("corpusd weights 1\n"));
  for (const std::string& name : shard_names_) {
    ASSIGN_OR_RETURN(const std::string digest, FileDigestHex(path_ + "/" + name, cache_dir));
    hash.Update(name + "\n" + digest + "\n");
  }
  return HexText(hash.Finish());
}

}  // namespace corpusd
