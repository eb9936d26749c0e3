// client/sources/source_reader.h -- SourceReader: the documents in one source after another: opens,
// unpacks, tells the kind by name and first bytes, converts and cuts, and hands the documents to a
// sink, in pieces; memory is bounded whatever the source. What is broken inside is skipped and
// counted; what the user must know fails. One thread. Borrows its sink and log.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/client_error.h"
#include "client/sources/document_sink.h"
#include "client/sources/skip_log.h"
#include "client/sources/source_walker.h"

namespace corpusd::sources {

class PackedFile;
class TextDecoder;

struct ReadOptions {
  std::string json_text_field;  // of JSON lines; empty: the whole object
  // What archives and compressed files may unpack to, all together.
  uint64_t unpacked_bytes_max = uint64_t{4} << 30;
  // Once true, reading ends with "interrupted". May be null. Not owned.
  const std::atomic<bool>* interrupted = nullptr;
};

class SourceReader {
 public:
  SourceReader(const ReadOptions& options, DocumentSink& sink, SkipLog& skips);
  ~SourceReader();
  SourceReader(const SourceReader&) = delete;
  SourceReader& operator=(const SourceReader&) = delete;

  // RETURNS true to go on, false if the sink wants no more; "io_error" if the file cannot be read,
  // "resource_exhausted" beyond unpacked_bytes_max, "interrupted".
  ClientResult<bool> ReadFile(const SourceFile& source);
  // A pipe, from `start`, which was read from it already. name decides the kind, as of a file.
  ClientResult<bool> ReadPipe(int file, const std::string& name, std::string_view start);

  uint64_t documents() const;
  uint64_t text_bytes() const;  // of the documents, as UTF-8
  // Of the sources themselves: how far reading is.
  uint64_t read_bytes() const { return read_bytes_ + packed_read_bytes_; }
  // Sources whose text was not UTF-8.
  uint64_t converted() const { return converted_; }

 private:
  class CountingSink;
  // The parts that one source goes through; the first of them takes its bytes.
  struct Chain {
    std::vector<std::unique_ptr<PieceConsumer>>
        parts;  // each but the first is borrowed by the last
    const TextDecoder* decoder = nullptr;
    PieceConsumer& front() { return *parts.back(); }
  };

  Chain MakeChain(const std::string& name, std::string_view sample);
  bool FinishChain(Chain& chain);
  ClientResult<bool> ReadPlain(int file, const std::string& name, std::string_view start);
  ClientResult<bool> ReadPacked(const SourceFile& source, int file);
  ClientResult<bool> ReadMembers(const SourceFile& source, PackedFile& packed);
  ClientResult<bool> ReadMember(PackedFile& packed, const std::string& name);
  // Up to bytes_max of the member; less at its end.
  ClientResult<std::string> ReadMemberPiece(PackedFile& packed, size_t bytes_max);
  ClientResult<Done> CheckLimits(const PackedFile& packed) const;

  const ReadOptions options_;
  std::unique_ptr<CountingSink> sink_;
  SkipLog& skips_;
  uint64_t read_bytes_ = 0;
  uint64_t packed_read_bytes_ = 0;  // of the packed file being read
  uint64_t unpacked_bytes_ = 0;     // of those before it
  uint64_t converted_ = 0;
};

}  // namespace corpusd::sources
