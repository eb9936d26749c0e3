#include "client/wire/frame_codec.h"

#include <google/protobuf/message_lite.h>

#include <algorithm>

namespace corpusd {
namespace {

// A frame's buffer is kept for the next one up to this size, so one large frame does not pin its
// memory.
constexpr size_t kKeptFrameBytes = size_t{1} << 20;

}  // namespace

bool AppendFrame(const google::protobuf::MessageLite& message, size_t frame_bytes_max,
                 std::string* out) {
  const size_t length = message.ByteSizeLong();
  if (length > frame_bytes_max || length > UINT32_MAX) return false;
  const size_t start = out->size();
  out->resize(start + kFrameHeaderBytes + length);
  auto* bytes = reinterpret_cast<uint8_t*>(out->data()) + start;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    bytes[i] = static_cast<uint8_t>(length >> (8 * (kFrameHeaderBytes - 1 - i)));
  }
  message.SerializeWithCachedSizesToArray(bytes + kFrameHeaderBytes);
  return true;
}

FrameDecoder::Outcome FrameDecoder::Take(std::string_view* input) {
  if (refused_bytes_ != 0) return Outcome::kTooLarge;
  if (complete_) {
    complete_ = false;
    header_filled_ = 0;
    if (frame_.capacity() > kKeptFrameBytes) frame_ = std::string();
    frame_.clear();
  }
  if (header_filled_ < kFrameHeaderBytes) {
    while (header_filled_ < kFrameHeaderBytes && !input->empty()) {
      header_[header_filled_++] = static_cast<uint8_t>(input->front());
      input->remove_prefix(1);
    }
    if (header_filled_ < kFrameHeaderBytes) return Outcome::kNeedMore;
    length_ = 0;
    for (uint8_t byte : header_) length_ = length_ << 8 | byte;
    if (length_ > frame_bytes_max_) {
      refused_bytes_ = length_;
      return Outcome::kTooLarge;
    }
  }
  // The buffer grows with the bytes that came, never with the bytes a header promises.
  const size_t taken = std::min(length_ - frame_.size(), input->size());
  frame_.append(input->data(), taken);
  input->remove_prefix(taken);
  if (frame_.size() < length_) return Outcome::kNeedMore;
  complete_ = true;
  return Outcome::kFrame;
}

}  // namespace corpusd
