// Any bytes, cut anywhere, through the frame decoder and the request parser: what a hostile client
// can send.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "client/wire/frame_codec.h"
#include "corpusd/v1/corpusd.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr size_t kLimit = 4096;
  const size_t piece_bytes = size_t{data[0]} + 1;
  std::string_view input(reinterpret_cast<const char*>(data + 1), size - 1);
  corpusd::FrameDecoder decoder(kLimit);
  while (!input.empty()) {
    std::string_view piece = input.substr(0, piece_bytes);
    input.remove_prefix(piece.size());
    for (;;) {
      const auto outcome = decoder.Take(&piece);
      if (outcome == corpusd::FrameDecoder::Outcome::kTooLarge) {
        if (decoder.refused_bytes() <= kLimit) std::abort();
        return 0;
      }
      if (decoder.frame().size() > kLimit) std::abort();
      if (outcome == corpusd::FrameDecoder::Outcome::kNeedMore) break;
      corpusd::v1::Request request;
      (void)request.ParseFromString(decoder.frame());
    }
  }
  return 0;
}
