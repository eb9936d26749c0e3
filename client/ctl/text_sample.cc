#include "client/ctl/text_sample.h"

#include <algorithm>
#include <utility>

namespace corpusd::ctl {

void TextSample::Add(std::string_view text) {
  while (!text.empty()) {
    const uint64_t in_stride = text_bytes_ % stride_;
    if (in_stride == 0) {
      if (pieces_.size() == kPiecesMax) {
        for (size_t i = 1; 2 * i < kPiecesMax; ++i) pieces_[i] = std::move(pieces_[2 * i]);
        pieces_.resize(kPiecesMax / 2);
        stride_ *= 2;
        // The text stands at a multiple of the new stride: 256 old ones.
      }
      pieces_.emplace_back();
    }
    const uint64_t wanted = in_stride < kPieceBytes ? kPieceBytes - in_stride : 0;
    if (wanted > 0) {
      const std::string_view taken = text.substr(0, wanted);
      pieces_.back() += taken;
      text_bytes_ += taken.size();
      text.remove_prefix(taken.size());
      continue;
    }
    const uint64_t passed = std::min<uint64_t>(stride_ - in_stride, text.size());
    text_bytes_ += passed;
    text.remove_prefix(passed);
  }
}

std::string TextSample::Text() const {
  std::string text;
  for (const std::string& piece : pieces_) text += piece;
  return text;
}

}  // namespace corpusd::ctl
