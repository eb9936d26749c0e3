// engine/tokenizer/tokenizer_loader.h -- builds a Tokenizer from its tables, checking each against
// the others. Only Tokenizer::FromGguf and FromTables use it; lives for one load.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "store/base/status.h"

namespace corpusd {

class TokenizerLoader {
 public:
  explicit TokenizerLoader(TokenizerTables tables) : tables_(std::move(tables)) {}
  Result<std::unique_ptr<Tokenizer>> Load();

 private:
  Status CheckKind();
  Status ReadVocabulary();
  Status ReadToken(TokenId id);
  Status ReadPieces();
  Status AddScoredMerges(PieceTable::Parts* parts) const;
  Status AddRankedMerges(PieceTable::Parts* parts) const;
  void PairsOfTokens(std::vector<MergeTable::Merge>* merges,
                     std::vector<std::string_view>* pieces) const;
  Status ReadMerges();
  Status ReadEndToken();
  void ComputeDigest();
  Status Wrong(const std::string& what) const;

  const TokenizerTables tables_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unordered_map<std::string_view, TokenId> ids_;
};

}  // namespace corpusd
