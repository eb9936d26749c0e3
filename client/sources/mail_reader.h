// client/sources/mail_reader.h -- MailReader: the mails of an mbox, or the one of an .eml file, as
// documents: From, To, Date and Subject, an empty line, then the text/plain parts decoded to UTF-8.
// Attached mails are read on as text; attachments and HTML parts are skipped and counted. Parsed as
// it comes, line by line: memory does not grow with mails or attachments, and hostile nesting ends
// at 16 parts inside each other. Lines of a document are its own, not the file's. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/sources/document_sink.h"
#include "client/sources/line_cutter.h"
#include "client/sources/mail_header.h"
#include "client/sources/skip_log.h"

namespace corpusd::sources {

enum class MailForm : uint8_t {
  kOne,      // the label of the document is the path
  kMailbox,  // "mail.mbox#17 Subject"; a new mail begins at "From ... 12:34" after an empty line
};

class MailReader : public PieceConsumer {
 public:
  static constexpr size_t kLineBytesMax = size_t{64} << 10;
  static constexpr size_t kPartsDeepMax = 16;

  MailReader(MailForm form, std::string path, DocumentSink& sink, SkipLog& skips);

  bool Write(std::string_view piece) override { return cutter_.Write(piece); }
  bool Finish() override;

 private:
  enum class Stage : uint8_t {
    kBetween,  // before the first mail of an mbox
    kHeaders,
    kText,
    kSkipped,  // an attachment
    kOutside,  // of the parts of a multipart body: before the first or after the last
  };

  bool TakePart(const LinePart& part);
  bool BeginMail();
  bool EndMail();
  bool EndHeaders();
  bool BeginDocument(const MailHeaders& headers);
  bool BeginBody(const MailHeaders& headers);
  bool BeginText(const MailHeaders& headers);
  bool EndText();
  // Whether the line ends or begins a part; then it is dealt with.
  bool IsBoundary(std::string_view line, bool* go_on);
  void SkipPart(SkipReason reason, const MailHeaders& headers);

  const MailForm form_;
  const std::string path_;
  DocumentSink& sink_;
  SkipLog& skips_;
  LineCutter cutter_;

  Stage stage_ = Stage::kBetween;
  uint64_t mails_ = 0;
  bool after_empty_line_ = true;
  bool in_document_ = false;
  std::string label_;
  HeaderReader headers_;
  std::vector<std::string> boundaries_;  // of the parts that are open, the innermost last
  // The chain of the text part being read: transfer decoder, charset decoder, document.
  std::unique_ptr<PieceConsumer> document_end_;
  std::unique_ptr<PieceConsumer> charset_decoder_;
  std::unique_ptr<PieceConsumer> transfer_decoder_;
};

}  // namespace corpusd::sources
