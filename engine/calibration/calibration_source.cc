#include "engine/calibration/calibration_source.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "engine/calibration/bundled_text.h"
#include "engine/calibration/calibrate.h"
#include "engine/calibration/kept_file.h"
#include "engine/model/mapped_file.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr std::string_view kSuffix = ".ckvcal";
constexpr size_t kShortDigest = 16;  // hex digits of the weights' and the text's digest in a name
// More of a text is not read: 32,768 tokens have some 150 KB.
constexpr size_t kTextBytesMax = 4 << 20;

std::string DigestOf(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return HexText(hash.Finish());
}

Status Keep(const std::string& folder, const KvCalibration& calibration, const std::string& name) {
  return KeepFile(folder, name + calibration.digest() + std::string(kSuffix), calibration.Bytes());
}

}  // namespace

std::string UserCacheFolder() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::string(cache) + "/corpusd";
  const char* const home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? "" : std::string(home) + "/.cache/corpusd";
}

CalibrationSource::CalibrationSource(const ModelSource& source, const Tokenizer& tokenizer,
                                     const Model& model, Backend& backend, ComputeGate& gate,
                                     CalibrationOptions options)
    : source_(source),
      tokenizer_(tokenizer),
      model_(model),
      backend_(backend),
      gate_(gate),
      options_(std::move(options)) {}

Result<std::string> CalibrationSource::Text() const {
  if (options_.text_path.empty()) return std::string(BundledCalibrationText());
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(options_.text_path));
  const auto bytes = file->bytes().first(std::min(file->bytes().size(), kTextBytesMax));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::unique_ptr<KvCalibration> CalibrationSource::Find(const std::string& folder,
                                                       const std::string& part) const {
  const ModelConfig& config = model_.config();
  const KvCalibrationShape shape{config.layers, config.kv_heads, config.head_dim};
  for (const std::string& path : KeptFiles(folder, part, kSuffix)) {
    const auto file = MappedFile::Open(path);
    if (!file.ok()) continue;
    auto calibration = KvCalibration::Parse((*file)->bytes());
    if (calibration.ok() && (*calibration)->shape() == shape) return *std::move(calibration);
  }
  return nullptr;
}

Result<std::unique_ptr<KvCalibration>> CalibrationSource::FetchOrMake(
    const std::string& text, const std::string& name) const {
  if (auto found = Find(options_.cache_folder, name)) return found;
  std::vector<TokenId> tokens;
  tokenizer_.Encode(text, /*parse_special=*/false, &tokens);
  ASSIGN_OR_RETURN(auto made, CalibrateKv(source_, {model_, backend_, gate_}, tokens,
                                          options_.threads, options_.progress));
  // The cache is a convenience: what it cannot hold is made again another time.
  (void)Keep(options_.cache_folder, *made, name);
  return made;
}

Result<const KvCalibration*> CalibrationSource::Adopt(std::unique_ptr<KvCalibration> calibration) {
  const std::string digest = calibration->digest();
  return loaded_.emplace(digest, std::move(calibration)).first->second.get();
}

Result<const KvCalibration*> CalibrationSource::Current() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (current_ != nullptr) return current_;
  ASSIGN_OR_RETURN(const std::string text, Text());
  const std::string name = options_.weights_digest.substr(0, kShortDigest) + "-" +
                           DigestOf(text).substr(0, kShortDigest) + "-";
  auto calibration = Find(options_.folder, name);
  if (calibration == nullptr) {
    ASSIGN_OR_RETURN(calibration, FetchOrMake(text, name));
    RETURN_IF_ERROR(Keep(options_.folder, *calibration, name));
  }
  ASSIGN_OR_RETURN(current_, Adopt(std::move(calibration)));
  return current_;
}

Result<const KvCalibration*> CalibrationSource::WithDigest(const std::string& digest) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = loaded_.find(digest); found != loaded_.end()) return found->second.get();
  const std::string name = digest + std::string(kSuffix);
  auto found = digest.empty() ? nullptr : Find(options_.folder, name);
  if (found == nullptr || found->digest() != digest) {
    return NotFoundError("the calibration " + digest + " is not in " + options_.folder);
  }
  return Adopt(std::move(found));
}

Result<KvLayout> CalibrationSource::LayoutOf(const KvFormat& blocks) {
  KvLayout layout;
  layout.blocks = blocks;
  ASSIGN_OR_RETURN(layout.own, model_.Format("bf16"));
  if (IsCoded(blocks)) {
    ASSIGN_OR_RETURN(layout.calibration, Current());
  }
  return layout;
}

}  // namespace corpusd
