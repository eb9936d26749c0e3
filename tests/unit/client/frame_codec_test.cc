#include "client/wire/frame_codec.h"

#include <gtest/gtest.h>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {
namespace {

v1::Request AskOf(const std::string& question) {
  v1::Request request;
  request.set_id(7);
  request.mutable_ask()->set_question(question);
  return request;
}

TEST(FrameCodec, LengthIsFourBytesBigEndian) {
  std::string frame;
  ASSERT_TRUE(AppendFrame(AskOf(std::string(300, 'q')), kFrameBytesMaxDefault, &frame));
  const size_t length = frame.size() - kFrameHeaderBytes;
  ASSERT_GT(length, 256u);
  EXPECT_EQ(frame.substr(0, 2), std::string(2, '\0'));
  EXPECT_EQ(static_cast<uint8_t>(frame[2]), length >> 8);
  EXPECT_EQ(static_cast<uint8_t>(frame[3]), length & 0xFF);
}

TEST(FrameCodec, DecodesByteByByte) {
  std::string stream;
  ASSERT_TRUE(AppendFrame(AskOf("first"), kFrameBytesMaxDefault, &stream));
  ASSERT_TRUE(AppendFrame(v1::Request(), kFrameBytesMaxDefault, &stream));  // an empty frame
  ASSERT_TRUE(AppendFrame(AskOf("second"), kFrameBytesMaxDefault, &stream));
  FrameDecoder decoder(kFrameBytesMaxDefault);
  std::vector<std::string> questions;
  for (char byte : stream) {
    std::string_view input(&byte, 1);
    while (decoder.Take(&input) == FrameDecoder::Outcome::kFrame) {
      v1::Request request;
      ASSERT_TRUE(request.ParseFromString(decoder.frame()));
      questions.push_back(request.ask().question());
    }
  }
  EXPECT_EQ(questions, (std::vector<std::string>{"first", "", "second"}));
  EXPECT_FALSE(decoder.inside_frame());
}

TEST(FrameCodec, DecodesManyFramesOfOneInput) {
  std::string stream;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(AppendFrame(AskOf(std::to_string(i)), kFrameBytesMaxDefault, &stream));
  }
  FrameDecoder decoder(kFrameBytesMaxDefault);
  std::string_view input = stream;
  int frames = 0;
  while (decoder.Take(&input) == FrameDecoder::Outcome::kFrame) ++frames;
  EXPECT_EQ(frames, 100);
  EXPECT_TRUE(input.empty());
}

TEST(FrameCodec, RefusesTwoGigabyteHeaderFromItsFourBytes) {
  FrameDecoder decoder(kFrameBytesMaxDefault);
  const std::string header("\x80\x00\x00\x00", 4);
  std::string_view input = header;
  EXPECT_EQ(decoder.Take(&input), FrameDecoder::Outcome::kTooLarge);
  EXPECT_EQ(decoder.refused_bytes(), uint64_t{1} << 31);
  EXPECT_LT(decoder.frame().capacity(), 64u);
  std::string_view more = "anything";
  EXPECT_EQ(decoder.Take(&more), FrameDecoder::Outcome::kTooLarge);
}

TEST(FrameCodec, PromisedBytesAreNotAllocated) {
  FrameDecoder decoder(kFrameBytesMaxDefault);
  const std::string start(
      "\x00\xff\xff\xff"
      "abc",
      7);
  std::string_view input = start;
  EXPECT_EQ(decoder.Take(&input), FrameDecoder::Outcome::kNeedMore);
  EXPECT_TRUE(decoder.inside_frame());
  EXPECT_LT(decoder.frame().capacity(), 64u);
}

TEST(FrameCodec, LimitIsInclusiveOnBothEnds) {
  const v1::Request request = AskOf("limit");
  const size_t length = request.ByteSizeLong();
  std::string frame = "before";
  EXPECT_FALSE(AppendFrame(request, length - 1, &frame));
  EXPECT_EQ(frame, "before");
  frame.clear();
  ASSERT_TRUE(AppendFrame(request, length, &frame));
  FrameDecoder exact(length), small(length - 1);
  std::string_view input = frame;
  EXPECT_EQ(exact.Take(&input), FrameDecoder::Outcome::kFrame);
  input = frame;
  EXPECT_EQ(small.Take(&input), FrameDecoder::Outcome::kTooLarge);
}

}  // namespace
}  // namespace corpusd
