#include "engine/tokenizer/tokenizer.h"

#include "engine/tokenizer/streaming_encoder.h"

namespace corpusd {

void Tokenizer::Encode(std::string_view text, bool parse_special, std::vector<TokenId>* out,
                       TextPlace place) const {
  StreamingEncoder encoder(*this, place);
  while (parse_special && !text.empty()) {
    const SpecialMatch match = FindFirstSpecial(text);
    if (match.at == std::string_view::npos) break;
    encoder.Append(text.substr(0, match.at), out);
    encoder.Finish(out);
    out->push_back(match.id);
    text.remove_prefix(match.at + pieces_[match.id].size());
    encoder.Begin(space_prefix_ == SpacePrefix::kEverySection ? TextPlace::kStart
                                                              : TextPlace::kInside);
  }
  encoder.Append(text, out);
  encoder.Finish(out);
}

// The leftmost special token, the longest of those.
Tokenizer::SpecialMatch Tokenizer::FindFirstSpecial(std::string_view text) const {
  for (size_t at = 0; at < text.size(); ++at) {
    at = text.find_first_of(special_starts_, at);
    if (at == std::string_view::npos) break;
    for (const TokenId id : specials_by_length_) {
      if (text.substr(at).starts_with(pieces_[id])) return {at, id};
    }
  }
  return {};
}

std::string Tokenizer::Decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) {
    if (id < vocabulary()) text += pieces_[id];
  }
  return text;
}

std::optional<TokenId> Tokenizer::FindSpecial(std::string_view text) const {
  const auto found = special_ids_.find(text);
  if (found == special_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace corpusd
