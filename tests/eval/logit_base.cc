#include "tests/eval/logit_base.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr std::string_view kMagic = "_logits_";
constexpr float kLogitRange = 16;  // below the largest logit; the rest is clipped
constexpr uint32_t kContextMax = 1u << 24;
constexpr uint32_t kVocabularyMax = 1u << 24;

}  // namespace

void EncodeLogitRow(std::span<const float> logits, std::span<uint16_t> row) {
  const auto [least, largest] = std::minmax_element(logits.begin(), logits.end());
  const float top = *largest;
  const float bottom = std::max(*least, top - kLogitRange);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float lowest = bottom - top - log_sum;
  const float scale = (top - bottom) / 65535.f;
  std::fill(row.begin(), row.end(), uint16_t{0});
  std::memcpy(row.data(), &scale, sizeof(scale));
  std::memcpy(row.data() + 2, &lowest, sizeof(lowest));
  if (scale == 0) return;
  const float inverse = 1 / scale;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] <= bottom) continue;
    // Ties to even, as everywhere in the default rounding mode.
    row[4 + i] = static_cast<uint16_t>(std::lrintf(inverse * (logits[i] - bottom)));
  }
}

LogitRow::LogitRow(std::span<const uint16_t> words) : codes(words.subspan(4)) {
  std::memcpy(&scale, words.data(), sizeof(scale));
  std::memcpy(&lowest, words.data() + 2, sizeof(lowest));
}

Result<std::unique_ptr<LogitBaseWriter>> LogitBaseWriter::Create(const std::string& path,
                                                                 const LogitBaseShape& shape,
                                                                 std::span<const TokenId> tokens) {
  CHECK(tokens.size() == size_t{shape.windows} * shape.context_tokens) << tokens.size();
  std::unique_ptr<LogitBaseWriter> writer(new LogitBaseWriter(path, shape));
  writer->file_.open(path, std::ios::binary | std::ios::trunc);
  if (!writer->file_) return IoError("cannot write " + path);
  const std::array<uint32_t, 3> header = {shape.context_tokens, shape.vocabulary, shape.windows};
  writer->file_.write(kMagic.data(), kMagic.size());
  writer->file_.write(reinterpret_cast<const char*>(header.data()), sizeof(header));
  writer->file_.write(reinterpret_cast<const char*>(tokens.data()),
                      static_cast<std::streamsize>(tokens.size_bytes()));
  return writer;
}

void LogitBaseWriter::Add(std::span<const float> logits) {
  CHECK(logits.size() == shape_.vocabulary) << logits.size();
  EncodeLogitRow(logits, row_);
  file_.write(reinterpret_cast<const char*>(row_.data()),
              static_cast<std::streamsize>(row_.size() * sizeof(uint16_t)));
  ++rows_;
}

Status LogitBaseWriter::Finish() {
  CHECK(rows_ == uint64_t{shape_.windows} * shape_.scored()) << rows_;
  file_.close();
  if (!file_) return IoError("writing " + path_ + " failed: is the disk full?");
  return OkStatus();
}

Result<std::unique_ptr<LogitBaseReader>> LogitBaseReader::Open(const std::string& path) {
  std::unique_ptr<LogitBaseReader> reader(new LogitBaseReader(path));
  RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

Status LogitBaseReader::ReadHeader() {
  file_.open(path_, std::ios::binary);
  if (!file_) return NotFoundError("cannot open " + path_);
  std::array<char, kMagic.size()> magic = {};
  std::array<int32_t, 3> header = {};
  file_.read(magic.data(), magic.size());
  file_.read(reinterpret_cast<char*>(header.data()), sizeof(header));
  if (!file_ || std::string_view(magic.data(), magic.size()) != kMagic) {
    return InvalidArgumentError(path_ +
                                " is no base file: make one with --make-base, or with "
                                "llama-perplexity --kl-divergence-base");
  }
  const auto [context, vocabulary, windows] = header;
  if (context < 4 || static_cast<uint32_t>(context) > kContextMax || vocabulary < 2 ||
      static_cast<uint32_t>(vocabulary) > kVocabularyMax || windows < 1) {
    return InvalidArgumentError(path_ + " names " + std::to_string(windows) + " windows of " +
                                std::to_string(context) + " tokens and a vocabulary of " +
                                std::to_string(vocabulary) + ": not a base file's shape");
  }
  shape_ = {static_cast<uint32_t>(context), static_cast<uint32_t>(vocabulary),
            static_cast<uint32_t>(windows)};
  std::error_code failed;
  const uint64_t bytes = std::filesystem::file_size(path_, failed);
  // In double: a hostile header must not overflow its way past this.
  const double expected =
      20.0 + static_cast<double>(windows) *
                 (4.0 * context + 2.0 * shape_.scored() * static_cast<double>(shape_.row_words()));
  if (failed || static_cast<double>(bytes) != expected) {
    return InvalidArgumentError(path_ + " has " + std::to_string(bytes) +
                                " bytes where its shape"
                                " needs " +
                                std::to_string(static_cast<uint64_t>(expected)) +
                                ": it is cut short or not finished; make it again");
  }
  tokens_.resize(size_t{shape_.windows} * shape_.context_tokens);
  row_.resize(shape_.row_words());
  file_.read(reinterpret_cast<char*>(tokens_.data()),
             static_cast<std::streamsize>(tokens_.size() * sizeof(TokenId)));
  if (!file_) return IoError("cannot read " + path_);
  for (const TokenId token : tokens_) {
    if (token >= shape_.vocabulary) {
      return InvalidArgumentError(path_ + " names token " + std::to_string(token) +
                                  " of a vocabulary of " + std::to_string(shape_.vocabulary));
    }
  }
  return OkStatus();
}

Result<LogitRow> LogitBaseReader::Next() {
  file_.read(reinterpret_cast<char*>(row_.data()),
             static_cast<std::streamsize>(row_.size() * sizeof(uint16_t)));
  if (!file_) return IoError("cannot read the next row of " + path_);
  return LogitRow(row_);
}

}  // namespace corpusd
