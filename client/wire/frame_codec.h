// client/wire/frame_codec.h -- frames of the socket protocol: a 4-byte big-endian length and that
// many bytes of one Protobuf message. Linked by both ends. Knows no socket and no particular
// message. A header over the limit is refused from its four bytes alone: nothing is allocated for
// it. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace google::protobuf {
class MessageLite;
}

namespace corpusd {

inline constexpr size_t kFrameHeaderBytes = 4;
inline constexpr size_t kFrameBytesMaxDefault = size_t{16} << 20;

// Appends the message as one frame. RETURNS false, with *out as it was, if it is over
// frame_bytes_max.
bool AppendFrame(const google::protobuf::MessageLite& message, size_t frame_bytes_max,
                 std::string* out);

class FrameDecoder {
 public:
  enum class Outcome {
    kNeedMore,  // the input is used up
    kFrame,     // frame() is complete; what is left of the input belongs to the next one
    kTooLarge,  // refused_bytes() is over the limit; every later Take says so too
  };

  explicit FrameDecoder(size_t frame_bytes_max) : frame_bytes_max_(frame_bytes_max) {}

  // Takes bytes off the front of *input until a frame is complete or the input is used up.
  Outcome Take(std::string_view* input);
  // REQUIRES: the last Take gave kFrame. Valid until the next Take.
  const std::string& frame() const { return frame_; }
  uint64_t refused_bytes() const { return refused_bytes_; }
  // Whether a frame has begun and not ended: a connection that ends here was cut off.
  bool inside_frame() const { return header_filled_ > 0 && !complete_; }

 private:
  size_t frame_bytes_max_;
  std::array<uint8_t, kFrameHeaderBytes> header_{};
  size_t header_filled_ = 0;
  size_t length_ = 0;
  bool complete_ = false;
  uint64_t refused_bytes_ = 0;
  std::string frame_;
};

}  // namespace corpusd
