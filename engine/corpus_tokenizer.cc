#include "engine/corpus_tokenizer.h"

#include "engine/tokenizer/streaming_encoder.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

class ExactTokenizer final : public CorpusTokenizer {
 public:
  ExactTokenizer(const Tokenizer& tokenizer, std::vector<TokenId> prefix, uint64_t first_token)
      : encoder_(tokenizer), tokens_(std::move(prefix)), first_token_(first_token) {}

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
  std::vector<TokenId> TakeTokens() override { return std::move(tokens_); }
  std::vector<CorpusSource> TakeSources() override { return std::move(sources_); }

 private:
  StreamingEncoder encoder_;  // one for all sources: its cache of words stays warm
  std::vector<TokenId> tokens_;
  const uint64_t first_token_;
  std::vector<CorpusSource> sources_;
  bool open_ = false;
  Sha256 hash_;
};

}  // namespace

std::unique_ptr<CorpusTokenizer> MakeExactTokenizer(const Tokenizer& tokenizer,
                                                    std::vector<TokenId> prefix,
                                                    uint64_t first_token) {
  return std::make_unique<ExactTokenizer>(tokenizer, std::move(prefix), first_token);
}

}  // namespace corpusd
