#include "client/sources/source_kind.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace corpusd::sources {
namespace {

constexpr std::array<std::string_view, 4> kCompressions = {".gz", ".bz2", ".xz", ".zst"};
constexpr std::array<std::string_view, 6> kArchives = {".tar", ".zip",  ".tgz",
                                                       ".txz", ".tbz2", ".tzst"};

std::string LowerBaseName(std::string_view path) {
  path = path.substr(path.find_last_of("/!") + 1);
  std::string name(path);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

// ".log", ".log.1", ".log-20260101", but not "logbook" nor a bare "log".
bool IsLogName(std::string_view name) {
  const size_t at = name.find(".log");
  if (at == std::string_view::npos || at == 0) return false;
  const std::string_view rest = name.substr(at + 4);
  return rest.empty() || ((rest[0] == '.' || rest[0] == '-') && rest.size() > 1 &&
                          std::isdigit(static_cast<unsigned char>(rest[1])) != 0);
}

// Whether a text begins with a header line, "Name: ".
bool BeginsWithHeader(std::string_view sample) {
  const size_t colon = sample.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon > 80) return false;
  return std::all_of(sample.begin(), sample.begin() + static_cast<std::ptrdiff_t>(colon),
                     [](char c) { return c > ' ' && c < 0x7F; });
}

bool BeginsWithValue(std::string_view sample) {
  const size_t at = sample.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  return at != std::string_view::npos && (sample[at] == '{' || sample[at] == '[');
}

}  // namespace

Packing PackingOf(std::string_view path) {
  const std::string name = LowerBaseName(path);
  std::string_view rest = name;
  bool compressed = false;
  for (const std::string_view ending : kCompressions) {
    if (!compressed && rest.size() > ending.size() && rest.ends_with(ending)) {
      rest.remove_suffix(ending.size());
      compressed = true;
    }
  }
  for (const std::string_view ending : kArchives) {
    const bool can_hold = !compressed || ending == ".tar";
    if (can_hold && rest.size() > ending.size() && rest.ends_with(ending)) return Packing::kArchive;
  }
  return compressed ? Packing::kCompressed : Packing::kNone;
}

std::string_view UnpackedName(std::string_view path) {
  return PackingOf(path) == Packing::kCompressed ? path.substr(0, path.find_last_of('.')) : path;
}

SourceKind KindOf(std::string_view path, std::string_view sample) {
  const std::string name = LowerBaseName(path);
  const std::string_view view = name;
  if (view.ends_with(".mbox") || view.ends_with(".mbx") || view == "mbox" ||
      view.ends_with(".eml")) {
    if (sample.starts_with("From ")) return SourceKind::kMailbox;
    return BeginsWithHeader(sample) ? SourceKind::kMail : SourceKind::kText;
  }
  if (view.ends_with(".jsonl") || view.ends_with(".ndjson")) {
    return BeginsWithValue(sample) ? SourceKind::kJsonLines : SourceKind::kText;
  }
  return IsLogName(view) ? SourceKind::kLog : SourceKind::kText;
}

}  // namespace corpusd::sources
