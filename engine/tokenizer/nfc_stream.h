// engine/tokenizer/nfc_stream.h -- Unicode normal form C of a text that arrives in pieces; the
// result does not depend on how it is cut. Holds back what later marks may still join. One thread
// at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

class NfcStream {
 public:
  // Marks in a row beyond this are not reordered across it, so that memory stays bounded.
  static constexpr size_t kClusterBytesMax = size_t{1} << 10;

  // Appends the normalized text that is certain by now to *out. REQUIRES: whole characters, as
  // RepairUtf8 leaves them; surrogates stay as they are. last: nothing follows.
  void Append(std::string_view text, bool last, std::string* out);

 private:
  size_t TakeCluster(std::string_view text, bool last, std::string* out);
  void Compose(std::string_view cluster, std::string* out);

  std::string pending_;  // a character and the marks that follow it, so far
  std::vector<int32_t> scratch_;
};

}  // namespace corpusd
