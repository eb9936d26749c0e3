#include "engine/corpus_tokenizer.h"

#include "engine/tokenizer/streaming_encoder.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

class StreamTokenizer final : public CorpusTokenizer {
 public:
  StreamTokenizer(const Tokenizer& tokenizer, std::vector<TokenId> prefix, uint64_t first_token)
      : tokenizer_(tokenizer),
        encoder_(tokenizer),
        tokens_(std::move(prefix)),
        first_token_(first_token) {}

  void BeginSource(std::string_view path) override {
    CorpusSource source;
    source.path = path;
    source.first_token = first_token_ + tokens_.size();
    sources_.push_back(std::move(source));
    open_ = true;
    hash_ = Sha256();
  }

  void Append(std::string_view bytes) override {
    CHECK(open_) << "Append before BeginSource";
    sources_.back().bytes += bytes.size();
    hash_.Update(bytes);
    encoder_.Append(bytes, &tokens_);
  }

  void EndSource() override {
    CHECK(open_) << "EndSource before BeginSource";
    encoder_.Finish(&tokens_);
    open_ = false;
    CorpusSource& source = sources_.back();
    source.tokens = first_token_ + tokens_.size() - source.first_token;
    source.sha256 = HexText(hash_.Finish());
  }

  uint64_t tokens() const override { return tokens_.size(); }

  void NameDocuments() override {
    CHECK(!open_) << "NameDocuments inside a source";
    if (sources_.empty()) return;
    const auto end_of_prefix =
        tokens_.begin() + static_cast<ptrdiff_t>(sources_.front().first_token - first_token_);
    std::vector<TokenId> named(tokens_.begin(), end_of_prefix);
    named.reserve(tokens_.size() + 16 * sources_.size());
    for (CorpusSource& source : sources_) {
      const uint64_t first = first_token_ + named.size();
      tokenizer_.Encode(DocumentHeader(source.path), false, &named);
      const auto begin =
          tokens_.begin() + static_cast<ptrdiff_t>(source.first_token - first_token_);
      named.insert(named.end(), begin, begin + static_cast<ptrdiff_t>(source.tokens));
      source.first_token = first;
      source.tokens = first_token_ + named.size() - first;
    }
    tokens_ = std::move(named);
  }

  std::vector<TokenId> TakeTokens() override { return std::move(tokens_); }
  std::vector<CorpusSource> TakeSources() override { return std::move(sources_); }

 private:
  const Tokenizer& tokenizer_;
  StreamingEncoder encoder_;  // one for all sources: its cache of words stays warm
  std::vector<TokenId> tokens_;
  const uint64_t first_token_;
  std::vector<CorpusSource> sources_;
  bool open_ = false;
  Sha256 hash_;
};

}  // namespace

std::string DocumentHeader(std::string_view path) { return "# " + std::string(path) + "\n\n"; }

std::unique_ptr<CorpusTokenizer> MakeCorpusTokenizer(const Tokenizer& tokenizer,
                                                     std::vector<TokenId> prefix,
                                                     uint64_t first_token) {
  return std::make_unique<StreamTokenizer>(tokenizer, std::move(prefix), first_token);
}

}  // namespace corpusd
