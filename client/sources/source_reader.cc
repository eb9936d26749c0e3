#include "client/sources/source_reader.h"

#include <utility>

#include "client/sources/file_reader.h"
#include "client/sources/json_lines.h"
#include "client/sources/log_cutter.h"
#include "client/sources/mail_reader.h"
#include "client/sources/packed_file.h"
#include "client/sources/text_decoder.h"

namespace corpusd::sources {
namespace {

constexpr size_t kMemberPieceBytes = size_t{256} << 10;

// A text that is one document.
class WholeDocument : public PieceConsumer {
 public:
  WholeDocument(std::string label, DocumentSink& sink) : label_(std::move(label)), sink_(sink) {}

  bool Write(std::string_view piece) override {
    if (!begun_ && !sink_.Begin(label_)) return false;
    begun_ = true;
    return sink_.Write(piece);
  }
  bool Finish() override { return (begun_ || sink_.Begin(label_)) && sink_.End(); }

 private:
  const std::string label_;
  DocumentSink& sink_;
  bool begun_ = false;
};

}  // namespace

// Counts documents, and skips those without a text.
class SourceReader::CountingSink : public DocumentSink {
 public:
  CountingSink(DocumentSink& sink, SkipLog& skips) : sink_(sink), skips_(skips) {}

  bool Begin(std::string_view label) override {
    label_ = label;
    return true;
  }
  bool Write(std::string_view text) override {
    if (text.empty()) return true;
    if (!begun_ && !sink_.Begin(label_)) return false;
    begun_ = true;
    text_bytes += text.size();
    return sink_.Write(text);
  }
  bool End() override {
    if (!begun_) {
      skips_.Add(SkipReason::kEmpty, label_);
      return true;
    }
    begun_ = false;
    ++documents;
    return sink_.End();
  }

  uint64_t documents = 0;
  uint64_t text_bytes = 0;

 private:
  DocumentSink& sink_;
  SkipLog& skips_;
  std::string label_;
  bool begun_ = false;
};

SourceReader::SourceReader(const ReadOptions& options, DocumentSink& sink, SkipLog& skips)
    : options_(options), sink_(std::make_unique<CountingSink>(sink, skips)), skips_(skips) {}

SourceReader::~SourceReader() = default;

uint64_t SourceReader::documents() const { return sink_->documents; }

uint64_t SourceReader::text_bytes() const { return sink_->text_bytes; }

SourceReader::Chain SourceReader::MakeChain(const std::string& name, std::string_view sample) {
  Chain chain;
  switch (KindOf(UnpackedName(name), sample)) {
    case SourceKind::kMail:  // mails say themselves how they are encoded
      chain.parts.push_back(std::make_unique<MailReader>(MailForm::kOne, name, *sink_, skips_));
      return chain;
    case SourceKind::kMailbox:
      chain.parts.push_back(std::make_unique<MailReader>(MailForm::kMailbox, name, *sink_, skips_));
      return chain;
    case SourceKind::kJsonLines:
      chain.parts.push_back(
          std::make_unique<JsonLines>(name, options_.json_text_field, *sink_, skips_));
      break;
    case SourceKind::kLog:
      chain.parts.push_back(std::make_unique<LogCutter>(name, *sink_));
      break;
    case SourceKind::kText:
      chain.parts.push_back(std::make_unique<WholeDocument>(name, *sink_));
      break;
  }
  auto decoder = std::make_unique<TextDecoder>(*chain.parts.front());
  chain.decoder = decoder.get();
  chain.parts.push_back(std::move(decoder));
  return chain;
}

bool SourceReader::FinishChain(Chain& chain) {
  const bool go_on = chain.front().Finish();
  if (chain.decoder != nullptr && chain.decoder->converted()) ++converted_;
  return go_on;
}

ClientResult<bool> SourceReader::ReadFile(const SourceFile& source) {
  auto file = OpenRegularFile(source.path, source.follow_link);
  if (!file.ok()) return file.error();
  if (source.packing != Packing::kNone) return ReadPacked(source, file->get());
  return ReadPlain(file->get(), source.name, "");
}

ClientResult<bool> SourceReader::ReadPipe(int file, const std::string& name,
                                          std::string_view start) {
  return ReadPlain(file, name, start);
}

ClientResult<bool> SourceReader::ReadPlain(int file, const std::string& name,
                                           std::string_view start) {
  Chain chain;
  bool go_on = true;
  const auto take = [&](std::string_view piece) {
    if (piece.empty()) return true;
    if (chain.parts.empty()) chain = MakeChain(name, piece.substr(0, kSampleBytes));
    read_bytes_ += piece.size();
    go_on = chain.front().Write(piece);
    return go_on;
  };
  if (!take(start)) return false;
  auto read = ReadDescriptor(file, name, options_.interrupted, take);
  if (!read.ok()) return read.error();
  if (!go_on) return false;
  if (chain.parts.empty()) {
    skips_.Add(SkipReason::kEmpty, name);
    return true;
  }
  return FinishChain(chain);
}

ClientResult<bool> SourceReader::ReadPacked(const SourceFile& source, int file) {
  auto packed = PackedFile::Open(file, source.path, source.packing);
  if (!packed.ok()) {
    skips_.Add(SkipReason::kBroken, source.name, packed.error().message);
    read_bytes_ += source.bytes;
    return true;
  }
  auto read = ReadMembers(source, **packed);
  unpacked_bytes_ += (*packed)->unpacked_bytes();
  packed_read_bytes_ = 0;
  read_bytes_ += source.bytes;
  return read;
}

ClientResult<bool> SourceReader::ReadMembers(const SourceFile& source, PackedFile& packed) {
  uint64_t broken = skips_.count(SkipReason::kBroken);
  for (;;) {
    auto member = packed.Next();
    if (!member.ok()) {
      // The member before it may have said so already.
      if (skips_.count(SkipReason::kBroken) > broken) return true;
      skips_.Add(SkipReason::kBroken, source.name, member.error().message);
      return true;
    }
    auto allowed = CheckLimits(packed);
    if (!allowed.ok()) return allowed.error();
    if (!member->has_value()) return true;
    if ((*member)->type == PackedMember::Type::kDirectory) continue;
    const bool is_archive = source.packing == Packing::kArchive;
    std::string name = source.name;
    if (is_archive) name += "!" + (*member)->name;
    if ((*member)->type == PackedMember::Type::kLink) {
      skips_.Add(SkipReason::kLink, name);
    } else if ((*member)->type == PackedMember::Type::kSpecial) {
      skips_.Add(SkipReason::kSpecial, name);
    } else if ((*member)->encrypted) {
      skips_.Add(SkipReason::kEncrypted, name);
    } else if (is_archive && PackingOf(name) != Packing::kNone) {
      skips_.Add(SkipReason::kNestedArchive, name);
    } else {
      broken = skips_.count(SkipReason::kBroken);
      auto read = ReadMember(packed, name);
      if (!read.ok() || !*read) return read;
    }
  }
}

ClientResult<std::string> SourceReader::ReadMemberPiece(PackedFile& packed, size_t bytes_max) {
  std::string piece(bytes_max, '\0');
  size_t filled = 0;
  while (filled < bytes_max) {
    auto got = packed.Read(piece.data() + filled, bytes_max - filled);
    if (!got.ok()) return got.error();
    if (*got == 0) break;
    filled += *got;
  }
  piece.resize(filled);
  return piece;
}

ClientResult<bool> SourceReader::ReadMember(PackedFile& packed, const std::string& name) {
  auto piece = ReadMemberPiece(packed, kSampleBytes);
  if (!piece.ok()) {
    skips_.Add(SkipReason::kBroken, name, piece.error().message);
    return true;
  }
  if (piece->empty()) {
    skips_.Add(SkipReason::kEmpty, name);
    return true;
  }
  if (LooksBinary(*piece)) {
    skips_.Add(SkipReason::kBinary, name);
    return true;
  }
  Chain chain = MakeChain(name, *piece);
  while (!piece->empty()) {
    if (!chain.front().Write(*piece)) return false;
    packed_read_bytes_ = packed.read_bytes();
    auto allowed = CheckLimits(packed);
    if (!allowed.ok()) return allowed.error();
    piece = ReadMemberPiece(packed, kMemberPieceBytes);
    if (!piece.ok()) {
      // What came before is a document; that it is not all of it is said.
      skips_.Add(SkipReason::kBroken, name, piece.error().message);
      break;
    }
  }
  return FinishChain(chain);
}

ClientResult<Done> SourceReader::CheckLimits(const PackedFile& packed) const {
  if (options_.interrupted != nullptr && options_.interrupted->load()) {
    return ClientError{kClientInterrupted, "interrupted", "interrupted while unpacking"};
  }
  if (unpacked_bytes_ + packed.unpacked_bytes() <= options_.unpacked_bytes_max) return Done{};
  return ClientError{5, "resource_exhausted",
                     "the archives unpack to more than " +
                         std::to_string(options_.unpacked_bytes_max) +
                         " bytes; --max-bytes allows more"};
}

}  // namespace corpusd::sources
