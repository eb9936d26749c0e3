#include "engine/retrieval/head_file.h"

#include <optional>

#include "engine/calibration/kept_file.h"
#include "engine/model/mapped_file.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr std::string_view kSuffix = ".ckvheads";
constexpr size_t kShortDigest = 16;  // hex digits of the weights' and the text's digest in a name

// The whole file whose name contains the digest of what it holds; none if there is no such one.
std::optional<RetrievalHeads> Find(const std::string& folder, const std::string& part,
                                   const HeadShape& shape) {
  for (const std::string& path : KeptFiles(folder, part, kSuffix)) {
    const auto file = MappedFile::Open(path);
    if (!file.ok()) continue;
    const auto bytes = (*file)->bytes();
    auto heads = RetrievalHeads::FromText(
        std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    if (heads.ok() && heads->shape() == shape &&
        path.find(heads->digest().Hex()) != std::string::npos) {
      return *std::move(heads);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<RetrievalHeads> KeptRetrievalHeads(const HeadSearch& search, std::string_view text,
                                          const HeadFileOptions& options) {
  Sha256 hash;
  hash.Update(text);
  const std::string part = options.weights_digest.substr(0, kShortDigest) + "-" +
                           HexText(hash.Finish()).substr(0, kShortDigest) + "-";
  const HeadShape shape = HeadShapeOf(search.context.model.config());
  if (auto found = Find(options.folder, part, shape)) return *std::move(found);
  auto heads = Find(options.cache_folder, part, shape);
  const bool made = !heads.has_value();
  if (made) {
    ASSIGN_OR_RETURN(heads, FindRetrievalHeads(search, text));
  }
  const std::string name = part + heads->digest().Hex() + std::string(kSuffix);
  // The cache is a convenience: what it cannot hold is made again another time.
  if (made) (void)KeepFile(options.cache_folder, name, heads->Text());
  RETURN_IF_ERROR(KeepFile(options.folder, name, heads->Text()));
  return *std::move(heads);
}

}  // namespace corpusd
