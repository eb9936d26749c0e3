#include "client/sources/mail_reader.h"

#include <cctype>
#include <utility>

#include "client/sources/transfer_decoder.h"

namespace corpusd::sources {
namespace {

constexpr size_t kSubjectBytesMax = 120;  // of a label

// Writes to the document that is open, and ends each part with a line feed.
class DocumentEnd : public PieceConsumer {
 public:
  explicit DocumentEnd(DocumentSink& sink) : sink_(sink) {}
  bool Write(std::string_view piece) override {
    if (piece.empty()) return true;
    ends_line_ = piece.ends_with('\n');
    return sink_.Write(piece);
  }
  bool Finish() override { return ends_line_ || sink_.Write("\n"); }

 private:
  DocumentSink& sink_;
  bool ends_line_ = true;
};

// A line that begins a mail has a time of day; a sentence that begins with "From" has none.
bool HasTimeOfDay(std::string_view line) {
  const auto digit = [&](size_t i) {
    return std::isdigit(static_cast<unsigned char>(line[i])) != 0;
  };
  for (size_t i = 2; i + 2 < line.size(); ++i) {
    if (line[i] == ':' && digit(i - 1) && digit(i + 1) && digit(i + 2)) return true;
  }
  return false;
}

// mboxrd: ">From " and ">>From " stand for one '>' less.
bool IsQuotedFrom(std::string_view line) {
  const size_t quotes = line.find_first_not_of('>');
  return quotes != std::string_view::npos && quotes > 0 && line.substr(quotes).starts_with("From ");
}

std::string CutSubject(std::string subject) {
  if (subject.size() <= kSubjectBytesMax) return subject;
  size_t end = kSubjectBytesMax;
  while (end > 0 && (static_cast<unsigned char>(subject[end]) & 0xC0) == 0x80) --end;
  subject.resize(end);
  return subject + "...";
}

}  // namespace

MailReader::MailReader(MailForm form, std::string path, DocumentSink& sink, SkipLog& skips)
    : form_(form),
      path_(std::move(path)),
      sink_(sink),
      skips_(skips),
      cutter_(kLineBytesMax, [this](const LinePart& part) { return TakePart(part); }) {}

bool MailReader::Finish() {
  if (!cutter_.Finish()) return false;
  return EndMail();
}

bool MailReader::TakePart(const LinePart& part) {
  if (mails_ == 0 && form_ == MailForm::kOne && !BeginMail()) return false;
  const bool whole = part.starts && part.ends;
  const bool after_empty_line = std::exchange(after_empty_line_, whole && part.text.empty());
  if (form_ == MailForm::kMailbox && part.starts && after_empty_line &&
      part.text.starts_with("From ") && (mails_ == 0 || HasTimeOfDay(part.text))) {
    return EndMail() && BeginMail();
  }
  bool go_on = true;
  if (part.starts && stage_ != Stage::kBetween && IsBoundary(part.text, &go_on)) return go_on;
  switch (stage_) {
    case Stage::kBetween:
    case Stage::kSkipped:
    case Stage::kOutside:
      return true;
    case Stage::kHeaders:
      if (whole && part.text.empty()) return EndHeaders();
      // A part of an overlong line is no field of its own.
      if (part.starts) headers_.AddLine(part.text);
      return true;
    case Stage::kText: {
      std::string_view text = part.text;
      if (form_ == MailForm::kMailbox && part.starts && IsQuotedFrom(text)) text.remove_prefix(1);
      return transfer_decoder_->Write(text) && (!part.ends || transfer_decoder_->Write("\n"));
    }
  }
  return true;
}

bool MailReader::BeginMail() {
  ++mails_;
  stage_ = Stage::kHeaders;
  headers_ = HeaderReader();
  return true;
}

bool MailReader::EndMail() {
  // A mail that ends within its headers is one without a text.
  if (stage_ == Stage::kHeaders && !in_document_ && !EndHeaders()) return false;
  if (!EndText()) return false;
  boundaries_.clear();
  stage_ = Stage::kBetween;
  if (!in_document_) return true;
  in_document_ = false;
  return sink_.End();
}

bool MailReader::BeginDocument(const MailHeaders& headers) {
  label_ = path_;
  if (form_ == MailForm::kMailbox) {
    label_ += "#" + std::to_string(mails_);
    if (!headers.subject.empty()) label_ += " " + CutSubject(headers.subject);
  }
  in_document_ = true;
  return sink_.Begin(label_);
}

bool MailReader::EndHeaders() {
  const MailHeaders headers = headers_.Finish();
  const bool attached = in_document_;
  if (!attached && !BeginDocument(headers)) return false;
  // Of the parts of a mail only an attached mail has such headers.
  std::string text;
  const auto add = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) text += std::string(name) + ": " + value + "\n";
  };
  add("From", headers.from);
  add("To", headers.to);
  add("Date", headers.date);
  add("Subject", headers.subject);
  if (!text.empty() && !sink_.Write(text + "\n")) return false;
  return BeginBody(headers);
}

bool MailReader::BeginBody(const MailHeaders& headers) {
  if (headers.type.starts_with("multipart/") && !headers.boundary.empty()) {
    stage_ = Stage::kOutside;
    if (boundaries_.size() == kPartsDeepMax) {
      SkipPart(SkipReason::kAttachment, headers);
    } else {
      boundaries_.push_back("--" + headers.boundary);
    }
    return true;
  }
  if (headers.type == "message/rfc822" && headers.encoding != "base64") {
    stage_ = Stage::kHeaders;
    return true;
  }
  if (headers.type == "text/html") {
    SkipPart(SkipReason::kHtmlPart, headers);
    return true;
  }
  if (!headers.type.starts_with("text/") || headers.disposition == "attachment") {
    SkipPart(SkipReason::kAttachment, headers);
    return true;
  }
  return BeginText(headers);
}

void MailReader::SkipPart(SkipReason reason, const MailHeaders& headers) {
  stage_ = Stage::kSkipped;
  const std::string name = headers.file_name.empty() ? headers.type : headers.file_name;
  skips_.Add(reason, label_ + " (" + name + ")");
}

bool MailReader::BeginText(const MailHeaders& headers) {
  stage_ = Stage::kText;
  document_end_ = std::make_unique<DocumentEnd>(sink_);
  charset_decoder_ = MakeCharsetDecoder(headers.charset, *document_end_);
  transfer_decoder_ = MakeTransferDecoder(headers.encoding, *charset_decoder_);
  return true;
}

bool MailReader::EndText() {
  if (stage_ != Stage::kText) return true;
  stage_ = Stage::kOutside;
  return transfer_decoder_->Finish();
}

bool MailReader::IsBoundary(std::string_view line, bool* go_on) {
  if (!line.starts_with("--")) return false;
  while (line.ends_with(' ') || line.ends_with('\t')) line.remove_suffix(1);
  for (size_t i = boundaries_.size(); i-- > 0;) {
    const std::string& boundary = boundaries_[i];
    const bool begins = line == boundary;
    const bool ends =
        line.size() == boundary.size() + 2 && line.starts_with(boundary) && line.ends_with("--");
    if (!begins && !ends) continue;
    *go_on = EndText();
    boundaries_.resize(begins ? i + 1 : i);
    stage_ = begins ? Stage::kHeaders : Stage::kOutside;
    headers_ = HeaderReader();
    return true;
  }
  return false;
}

}  // namespace corpusd::sources
