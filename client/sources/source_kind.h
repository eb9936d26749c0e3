// client/sources/source_kind.h -- what a file holds, told by its name and first bytes: one text, or
// many documents. Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace corpusd::sources {

// How the bytes of a file are wrapped.
enum class Packing : uint8_t {
  kNone,
  kCompressed,  // one file: .gz, .bz2, .xz, .zst
  kArchive,     // many: .tar, .tar.gz and so on, .zip
};

enum class SourceKind : uint8_t {
  kText,       // one document
  kMail,       // .eml: one mail
  kMailbox,    // .mbox: many
  kJsonLines,  // .jsonl, .ndjson: a document a line
  kLog,        // .log, .log.1, app.log-20260101: documents of bounded size
};

Packing PackingOf(std::string_view path);
// The name of what a compressed file holds: without ".gz" and the like.
std::string_view UnpackedName(std::string_view path);
// sample: the first bytes, unpacked. A name that promises more than the bytes hold is text.
SourceKind KindOf(std::string_view path, std::string_view sample);

}  // namespace corpusd::sources
