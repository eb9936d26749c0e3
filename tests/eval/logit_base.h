// tests/eval/logit_base.h -- the file in which llama.cpp's llama-perplexity keeps one model's
// answers for later comparison (--kl-divergence-base), read and written bit for bit, so that each
// tool takes the other's files. Little-endian:
//   "_logits_" | int32 ctx | int32 vocabulary | int32 windows | int32 token[windows * ctx] |
//   per scored position a row of uint16[2 * ((vocabulary + 1) / 2) + 4]: float32 scale, float32
//   lowest log-probability, codes; log p = scale * code + lowest. One thread per object.
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "store/base/result.h"

namespace corpusd {

struct LogitBaseShape {
  uint32_t context_tokens = 0;  // of a window
  uint32_t vocabulary = 0;
  uint32_t windows = 0;

  // The second half of a window is scored, except the last token, which has no successor.
  uint32_t first_scored() const { return context_tokens / 2; }
  uint32_t scored() const { return context_tokens - 1 - first_scored(); }
  size_t row_words() const { return 2 * ((size_t{vocabulary} + 1) / 2) + 4; }
};

// Writes a row, in float32 as llama-perplexity does; logits more than 16 below the largest count as
// 16 below. row.size() == shape.row_words().
void EncodeLogitRow(std::span<const float> logits, std::span<uint16_t> row);

// One row of a base file.
struct LogitRow {
  explicit LogitRow(std::span<const uint16_t> words);
  float LogProbability(uint32_t token) const {
    return scale * static_cast<float>(codes[token]) + lowest;
  }
  float scale = 0;
  float lowest = 0;
  std::span<const uint16_t> codes;  // one for each token, then possibly one of padding
};

class LogitBaseWriter {
 public:
  // Starts the file, replacing one that is there. REQUIRES: tokens.size() = windows * ctx.
  static Result<std::unique_ptr<LogitBaseWriter>> Create(const std::string& path,
                                                         const LogitBaseShape& shape,
                                                         std::span<const TokenId> tokens);
  // Rows come window by window, shape.scored() for each.
  void Add(std::span<const float> logits);
  // kIoError if anything could not be written; CHECKs that every row came.
  Status Finish();

 private:
  LogitBaseWriter(std::string path, const LogitBaseShape& shape)
      : path_(std::move(path)), shape_(shape), row_(shape.row_words()) {}

  const std::string path_;
  const LogitBaseShape shape_;
  std::vector<uint16_t> row_;
  std::ofstream file_;
  uint64_t rows_ = 0;
};

class LogitBaseReader {
 public:
  // kNotFound, or kInvalidArgument if the file is no base file, contradicts its own size, or names
  // tokens outside its vocabulary.
  static Result<std::unique_ptr<LogitBaseReader>> Open(const std::string& path);
  const LogitBaseShape& shape() const { return shape_; }
  std::span<const TokenId> tokens() const { return tokens_; }
  std::span<const TokenId> window(uint32_t w) const {
    return tokens().subspan(size_t{w} * shape_.context_tokens, shape_.context_tokens);
  }
  // The next row, valid until the next call.
  Result<LogitRow> Next();

 private:
  explicit LogitBaseReader(std::string path) : path_(std::move(path)) {}
  Status ReadHeader();

  const std::string path_;
  std::ifstream file_;
  LogitBaseShape shape_;
  std::vector<TokenId> tokens_;
  std::vector<uint16_t> row_;
};

}  // namespace corpusd
