#include "engine/tokenizer/nfc_stream.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

// Whether nothing before the character can join it: it is no mark, and no vowel or final of Hangul.
bool BeginsCluster(uint32_t code_point) {
  if (code_point < 0x300) return true;
  if ((code_point >= 0x1160 && code_point <= 0x11ff) ||
      (code_point >= 0xd7b0 && code_point <= 0xd7ff)) {
    return false;
  }
  const utf8proc_property_t* const property =
      utf8proc_get_property(static_cast<utf8proc_int32_t>(code_point));
  return property->combining_class == 0 && property->category != UTF8PROC_CATEGORY_MN &&
         property->category != UTF8PROC_CATEGORY_MC && property->category != UTF8PROC_CATEGORY_ME;
}

// Whether the character alone is its own normal form.
bool IsComposed(uint32_t code_point) {
  return code_point < 0xc0 ||
         utf8proc_get_property(static_cast<utf8proc_int32_t>(code_point))->decomp_seqindex ==
             UINT16_MAX;
}

}  // namespace

void NfcStream::Append(std::string_view text, bool last, std::string* out) {
  if (!pending_.empty()) {
    pending_ += text;
    text = pending_;
  }
  size_t at = 0;
  while (at < text.size()) {
    const size_t taken = TakeCluster(text.substr(at), last, out);
    if (taken == 0) break;
    at += taken;
  }
  pending_ = std::string(text.substr(at));
}

// RETURNS the bytes of the first character with all that may join it; 0: more may follow.
size_t NfcStream::TakeCluster(std::string_view text, bool last, std::string* out) {
  const CodePoint first = DecodeAt(text, 0);
  size_t end = first.bytes;
  while (end < text.size() && end < kClusterBytesMax) {
    const CodePoint next = DecodeAt(text, end);
    if (BeginsCluster(next.value)) break;
    end += next.bytes;
  }
  if (end == text.size() && end < kClusterBytesMax && !last) return 0;
  const std::string_view cluster = text.substr(0, end);
  if (end == first.bytes && IsComposed(first.value)) {
    out->append(cluster);
  } else {
    Compose(cluster, out);
  }
  return end;
}

void NfcStream::Compose(std::string_view cluster, std::string* out) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto* const bytes = reinterpret_cast<const utf8proc_uint8_t*>(cluster.data());
  const auto size = static_cast<utf8proc_ssize_t>(cluster.size());
  scratch_.resize(std::max<size_t>(64, 4 * cluster.size()));
  auto count = utf8proc_decompose(bytes, size, scratch_.data(),
                                  static_cast<utf8proc_ssize_t>(scratch_.size()), kOptions);
  if (count >= static_cast<utf8proc_ssize_t>(scratch_.size())) {
    scratch_.resize(static_cast<size_t>(count) + 1);
    count = utf8proc_decompose(bytes, size, scratch_.data(),
                               static_cast<utf8proc_ssize_t>(scratch_.size()), kOptions);
  }
  // Surrogates have no normal form. Re-encoding works in place and adds a zero.
  const auto written = count < 0 ? -1 : utf8proc_reencode(scratch_.data(), count, kOptions);
  if (written < 0) {
    out->append(cluster);
  } else {
    out->append(reinterpret_cast<const char*>(scratch_.data()), static_cast<size_t>(written));
  }
}

}  // namespace corpusd
