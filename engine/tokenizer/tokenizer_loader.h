// engine/tokenizer/tokenizer_loader.h -- builds a Tokenizer from a GGUF file's metadata, checking
// every table against the others. Only Tokenizer::FromGguf uses it; lives for one load.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/base/status.h"

namespace corpusd {

class TokenizerLoader {
 public:
  explicit TokenizerLoader(const GgufFile& file) : file_(file) {}
  Result<std::unique_ptr<Tokenizer>> Load();

 private:
  Status CheckKind();
  Status ReadVocabulary();
  Status ReadMerges();
  Status ReadEndToken();
  void ComputeDigest();
  Status Wrong(const std::string& what) const;

  const GgufFile& file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string pre_;
  std::vector<std::string_view> texts_;  // as the file writes them, byte-mapped
  std::vector<int64_t> kinds_;
  std::vector<std::string_view> merge_texts_;
  std::unordered_map<std::string_view, TokenId> ids_;
};

}  // namespace corpusd
