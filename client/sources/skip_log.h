// client/sources/skip_log.h -- SkipLog: what a reading left out and why: counts of everything, and
// a list of the first ten thousand things, so that memory stays bounded. A value; one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd::sources {

enum class SkipReason : uint8_t {
  kBinary,
  kUnreadable,  // directories too
  kSpecial,     // FIFOs, sockets, devices
  kLink,
  kIgnored,  // by .gitignore; a directory counts as one
  kEmpty,
  kNestedArchive,
  kEncrypted,
  kBroken,      // an archive or a part of one that does not unpack
  kAttachment,  // of a mail: what is not text
  kHtmlPart,    // of a mail
  kBadLine,     // no JSON
  kLongLine,
  kNoField,  // a JSON line without the field that was asked for
};
inline constexpr size_t kSkipReasons = 14;

// "binary", "no_field", ...: stable, for programs.
std::string_view SkipReasonName(SkipReason reason);

struct Skipped {
  std::string what;  // a label as of a document; valid UTF-8
  SkipReason reason = SkipReason::kBinary;
  std::string detail;  // may be empty
};

class SkipLog {
 public:
  void Add(SkipReason reason, std::string_view what, std::string_view detail = "");

  uint64_t count(SkipReason reason) const { return counts_[static_cast<size_t>(reason)]; }
  uint64_t total() const;
  // Files that a reader might have expected in the corpus: not those ignored, linked or empty, and
  // no parts of files.
  uint64_t files() const;
  const std::vector<Skipped>& items() const { return items_; }  // the first of them

  // "skipped 3 binary files, 1 unreadable, 2 links"; empty if nothing was.
  std::string Describe() const;

 private:
  std::array<uint64_t, kSkipReasons> counts_{};
  std::vector<Skipped> items_;
};

}  // namespace corpusd::sources
