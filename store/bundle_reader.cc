#include "store/bundle_reader.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "store/base/check.h"
#include "store/base/crc32c.h"
#include "store/record_codec.h"

namespace corpusd {
namespace {

std::string KindText(BundleRecordKind kind) {
  switch (kind) {
    case BundleRecordKind::kHead:
      return "head";
    case BundleRecordKind::kTokens:
      return "token";
    case BundleRecordKind::kBlock:
      return "block";
    case BundleRecordKind::kEnd:
      return "end";
  }
  return "unknown";
}

Result<std::string> Decompress(const std::string& body, uint64_t content_bytes) {
  std::string content(content_bytes, '\0');
  const size_t size = ZSTD_decompress(content.data(), content.size(), body.data(), body.size());
  if (ZSTD_isError(size) != 0 || size != content_bytes) {
    return CorruptionError("a record cannot be decompressed");
  }
  return content;
}

}  // namespace

Status BundleReader::At(const Status& status) const {
  if (status.code() != StatusCode::kCorruption) return status;
  std::string place = "the bundle is damaged before byte " + std::to_string(bytes_);
  if (next_block_ > 0) place += ", after " + std::to_string(next_block_) + " whole blocks";
  return status.WithContext(place);
}

Status BundleReader::Feed(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (state_ == State::kComplete) return At(CorruptionError("it goes on after its end"));
    const size_t taken = std::min(bytes.size(), wanted_bytes_ - buffer_.size());
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), taken);
    bytes_ += taken;
    bytes = bytes.subspan(taken);
    if (buffer_.size() < wanted_bytes_) return OkStatus();
    const Status status = Take();
    if (!status.ok()) return At(status);
  }
  return OkStatus();
}

Status BundleReader::Finish() const {
  if (complete()) return OkStatus();
  return At(CorruptionError("it is cut off"));
}

Status BundleReader::Take() {
  switch (state_) {
    case State::kPrelude:
      RETURN_IF_ERROR(CheckBundlePrelude(std::as_bytes(std::span(buffer_))));
      hash_.Update(buffer_);
      break;
    case State::kHeader:
      RETURN_IF_ERROR(TakeHeader());
      buffer_.clear();
      wanted_bytes_ = record_.stored_bytes;
      state_ = State::kBody;
      return OkStatus();
    case State::kBody:
      RETURN_IF_ERROR(TakeBody());
      if (state_ == State::kComplete) return OkStatus();
      break;
    case State::kComplete:
      break;
  }
  buffer_.clear();
  wanted_bytes_ = kBundleRecordHeaderBytes;
  state_ = State::kHeader;
  return OkStatus();
}

BundleRecordKind BundleReader::Expected() const {
  if (!has_head_) return BundleRecordKind::kHead;
  if (chain_.empty()) return BundleRecordKind::kTokens;
  const bool more = next_block_ < head_.blocks || NextPart() != nullptr;
  return more ? BundleRecordKind::kBlock : BundleRecordKind::kEnd;
}

const HeldPart* BundleReader::NextPart() const {
  const bool due = next_part_ < parts_.size() && parts_[next_part_].block < next_block_;
  return due ? &parts_[next_part_] : nullptr;
}

uint64_t BundleReader::ContentBytesMax() const {
  switch (Expected()) {
    case BundleRecordKind::kHead:
      return kBundleHeadBytesMax;
    case BundleRecordKind::kTokens:
      return std::min<uint64_t>(kTokensPerChunk, head_.tokens - tokens_.size()) * sizeof(TokenId);
    case BundleRecordKind::kBlock: {
      const HeldPart* const held = NextPart();
      const CorpusPart* const part = held == nullptr ? nullptr : &head_.parts[held->part];
      BlockHeader header;
      header.section_crcs.resize(part == nullptr ? head_.sections : part->sections);
      return header.EncodedBytes() + (part == nullptr ? head_.block_bytes : part->block_bytes);
    }
    case BundleRecordKind::kEnd:
      return kBundleEndBytes;
  }
  return 0;
}

Status BundleReader::TakeHeader() {
  ASSIGN_OR_RETURN(record_, DecodeBundleRecord(std::as_bytes(std::span(buffer_))));
  if (record_.kind != Expected()) {
    return CorruptionError("a " + KindText(record_.kind) + " record where a " +
                           KindText(Expected()) + " record must be");
  }
  const uint64_t content_max = ContentBytesMax();
  const bool exact =
      record_.kind == BundleRecordKind::kBlock || record_.kind == BundleRecordKind::kEnd;
  if (record_.content_bytes == 0 || record_.content_bytes > content_max ||
      (exact && record_.content_bytes != content_max)) {
    return CorruptionError("a " + KindText(record_.kind) + " record of " +
                           std::to_string(record_.content_bytes) + " bytes, where " +
                           std::to_string(content_max) + " can be");
  }
  if (record_.stored_bytes == 0 ||
      record_.stored_bytes > ZSTD_compressBound(record_.content_bytes)) {
    return CorruptionError("a " + KindText(record_.kind) + " record that takes " +
                           std::to_string(record_.stored_bytes) + " bytes for " +
                           std::to_string(record_.content_bytes));
  }
  if (record_.kind != BundleRecordKind::kEnd) hash_.Update(buffer_);
  return OkStatus();
}

Status BundleReader::TakeBody() {
  if (Crc32c(std::as_bytes(std::span(buffer_))) != record_.body_crc) {
    return CorruptionError("the checksum of a " + KindText(record_.kind) + " record differs");
  }
  if (record_.kind != BundleRecordKind::kEnd) hash_.Update(buffer_);
  std::string content;
  if (record_.encoding == BundleEncoding::kZstd) {
    ASSIGN_OR_RETURN(content, Decompress(buffer_, record_.content_bytes));
  } else {
    content = std::move(buffer_);
  }
  const auto bytes = std::as_bytes(std::span(content));
  switch (record_.kind) {
    case BundleRecordKind::kHead:
      return TakeHead(content);
    case BundleRecordKind::kTokens:
      return TakeTokens(bytes);
    case BundleRecordKind::kBlock:
      return TakeBlock(bytes);
    case BundleRecordKind::kEnd:
      return TakeEnd(bytes);
  }
  return InternalError("unknown record");
}

Status BundleReader::TakeHead(std::string_view content) {
  ASSIGN_OR_RETURN(head_, DecodeBundleHead(content));
  has_head_ = true;
  return sink_.OnHead(head_);
}

Status BundleReader::TakeTokens(std::span<const std::byte> content) {
  if (content.size() % sizeof(TokenId) != 0) return CorruptionError("half a token id");
  const size_t first = tokens_.size();
  tokens_.resize(first + content.size() / sizeof(TokenId));
  std::memcpy(tokens_.data() + first, content.data(), content.size());
  if (tokens_.size() < head_.tokens) return OkStatus();
  chain_ = layout_.emplace(ChainOf(head_)).Digests(head_.root, tokens_);
  CHECK(chain_.size() == head_.blocks) << chain_.size();
  parts_ = PartsInOrder(head_, chain_);
  return sink_.OnTokens(std::move(tokens_));
}

Status BundleReader::TakeBlock(std::span<const std::byte> content) {
  const HeldPart* const held = NextPart();
  const uint64_t block = held == nullptr ? next_block_ : held->block;
  const CorpusPart* const part = held == nullptr ? nullptr : &head_.parts[held->part];
  const std::string what =
      "block " + std::to_string(block) + (part == nullptr ? "" : ", part " + part->kind) + ": ";
  const auto header = DecodeBlockHeader(content);
  if (!header.ok()) return CorruptionError(what + header.status().message());
  if (header->digest != (held == nullptr ? chain_[block] : held->digest) ||
      header->tokens != layout_->block(block).tokens) {
    return CorruptionError(what + "it is not the block that its tokens give");
  }
  if (header->payload_bytes != (part == nullptr ? head_.block_bytes : part->block_bytes) ||
      header->section_crcs.size() != (part == nullptr ? head_.sections : part->sections)) {
    return CorruptionError(what + "it is not as large as the head says");
  }
  const auto payload = content.subspan(header->EncodedBytes());
  if (const Status good = VerifyPayload(*header, payload); !good.ok()) {
    return CorruptionError(what + good.message());
  }
  if (held != nullptr) {
    ++next_part_;
    return sink_.OnPart(block, held->part, *header, payload);
  }
  ++next_block_;
  return sink_.OnBlock(block, *header, payload);
}

Status BundleReader::TakeEnd(std::span<const std::byte> content) {
  const Sha256Bytes digest = hash_.Finish();
  uint64_t blocks = 0;
  std::memcpy(&blocks, content.data() + digest.size(), sizeof blocks);
  if (std::memcmp(content.data(), digest.data(), digest.size()) != 0 || blocks != head_.blocks) {
    forged_ = true;
    return CorruptionError("the SHA-256 over everything differs: the file was changed");
  }
  RETURN_IF_ERROR(sink_.OnEnd());
  state_ = State::kComplete;
  return OkStatus();
}

}  // namespace corpusd
