// Any bytes as mail: parsing ends, documents are begun and ended in turn, their text does not
// depend on how the bytes arrive, and little text is made of little. The first byte of the input
// decides the form and where the bytes are cut; the rest is the mail.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "client/sources/mail_reader.h"
#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

class Checked : public DocumentSink {
 public:
  bool Begin(std::string_view label) override {
    if (open_ || label.empty() || !IsUtf8(label)) std::abort();
    open_ = true;
    text_ += label;
    return true;
  }
  bool Write(std::string_view text) override {
    if (!open_) std::abort();
    text_ += text;
    return true;
  }
  bool End() override {
    if (!open_) std::abort();
    open_ = false;
    return true;
  }

  bool open() const { return open_; }
  const std::string& text() const { return text_; }

 private:
  bool open_ = false;
  std::string text_;
};

std::string Read(MailForm form, std::string_view mail, size_t piece_bytes, uint64_t* skipped) {
  Checked sink;
  SkipLog skips;
  MailReader reader(form, "m", sink, skips);
  for (size_t at = 0; at < mail.size(); at += piece_bytes) {
    if (!reader.Write(mail.substr(at, piece_bytes))) std::abort();
  }
  if (!reader.Finish() || sink.open()) std::abort();
  *skipped = skips.total();
  return sink.text();
}

void Check(MailForm form, std::string_view mail, size_t piece_bytes) {
  uint64_t skipped = 0;
  uint64_t skipped_in_pieces = 0;
  const std::string whole = Read(form, mail, mail.size() + 1, &skipped);
  if (Read(form, mail, piece_bytes, &skipped_in_pieces) != whole) std::abort();
  if (skipped != skipped_in_pieces) std::abort();
  // A byte becomes at most a few of UTF-8; labels and names of headers come on top, per mail.
  if (whole.size() > 64 + 40 * mail.size()) std::abort();
}

}  // namespace
}  // namespace corpusd::sources

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view mail(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto form =
      data[0] % 2 == 0 ? corpusd::sources::MailForm::kOne : corpusd::sources::MailForm::kMailbox;
  corpusd::sources::Check(form, mail, 1 + data[0] / 2);
  return 0;
}
