// client/ctl/text_sample.h -- TextSample: pieces taken evenly out of a text that comes as a stream
// and whose length nobody knows before its end. Deterministic; memory is at most one mebibyte. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd::ctl {

class TextSample {
 public:
  static constexpr size_t kPieceBytes = size_t{4} << 10;
  static constexpr size_t kPiecesMax = 256;

  void Add(std::string_view text);
  // The pieces one after the other.
  std::string Text() const;
  uint64_t text_bytes() const { return text_bytes_; }

 private:
  // Pieces begin at multiples of the stride; whenever there are too many, every other one goes and
  // the stride doubles.
  std::vector<std::string> pieces_;
  uint64_t stride_ = kPieceBytes;
  uint64_t text_bytes_ = 0;
};

}  // namespace corpusd::ctl
