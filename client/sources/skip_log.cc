#include "client/sources/skip_log.h"

#include <numeric>

#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

constexpr size_t kItemsMax = 10000;

struct Words {
  std::string_view name;
  std::string_view one;
  std::string_view many;
};

constexpr std::array<Words, kSkipReasons> kWords = {{
    {"binary", "binary file", "binary files"},
    {"unreadable", "unreadable", "unreadable"},
    {"special", "special file", "special files"},
    {"link", "link", "links"},
    {"ignored", "ignored by .gitignore", "ignored by .gitignore"},
    {"empty", "empty", "empty"},
    {"nested_archive", "archive inside an archive", "archives inside archives"},
    {"encrypted", "encrypted file", "encrypted files"},
    {"broken", "broken archive", "broken archives"},
    {"attachment", "attachment", "attachments"},
    {"html_part", "HTML part of a mail", "HTML parts of mails"},
    {"bad_line", "line that is no JSON", "lines that are no JSON"},
    {"long_line", "line that is too long", "lines that are too long"},
    {"no_field", "line without the field", "lines without the field"},
}};

}  // namespace

std::string_view SkipReasonName(SkipReason reason) {
  return kWords[static_cast<size_t>(reason)].name;
}

void SkipLog::Add(SkipReason reason, std::string_view what, std::string_view detail) {
  ++counts_[static_cast<size_t>(reason)];
  if (items_.size() < kItemsMax)
    items_.push_back({ReplaceInvalidUtf8(what), reason, ReplaceInvalidUtf8(detail)});
}

uint64_t SkipLog::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), uint64_t{0});
}

uint64_t SkipLog::files() const {
  uint64_t files = 0;
  for (const SkipReason reason :
       {SkipReason::kBinary, SkipReason::kUnreadable, SkipReason::kSpecial,
        SkipReason::kNestedArchive, SkipReason::kEncrypted, SkipReason::kBroken,
        SkipReason::kAttachment}) {
    files += count(reason);
  }
  return files;
}

std::string SkipLog::Describe() const {
  std::string text;
  for (size_t i = 0; i < kSkipReasons; ++i) {
    if (counts_[i] == 0) continue;
    text += text.empty() ? "skipped " : ", ";
    text += std::to_string(counts_[i]) + " ";
    text += counts_[i] == 1 ? kWords[i].one : kWords[i].many;
  }
  return text;
}

}  // namespace corpusd::sources
