#include "engine/retrieval/needle_corpus.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <unordered_set>

#include "store/base/split_mix.h"

namespace corpusd {
namespace {

constexpr std::array kColours = {"amber",   "beige",   "carved", "copper", "coral",  "ebony",
                                 "faded",   "gilded",  "hazel",  "hidden", "iron",   "indigo",
                                 "ivory",   "lilac",   "maroon", "modern", "mossy",  "ochre",
                                 "olive",   "painted", "plum",   "rusty",  "sandy",  "scarlet",
                                 "stately", "teal",    "timber", "umber",  "violet", "wooden"};
constexpr std::array kThings = {"anvil",   "archive", "bakery",  "beacon", "brewery", "canal",
                                "cellar",  "chapel",  "compass", "dairy",  "depot",   "ferry",
                                "foundry", "gallery", "granary", "hostel", "kiln",    "lantern",
                                "library", "loom",    "mill",    "museum", "pantry",  "pier",
                                "quarry",  "saddle",  "spindle", "stable", "theatre", "turbine"};
constexpr std::array kNames = {"Ingrid Falk", "Omar Haddad", "Lucia Prado", "Tomas Novak",
                               "Mei Tanaka",  "Paul Okoye",  "Greta Lind",  "Ivan Petrov"};

class Random {
 public:
  explicit Random(uint64_t seed) : numbers_(seed) {}
  size_t Below(size_t limit) { return numbers_.Next() % limit; }
  template <typename Words>
  std::string Pick(const Words& words) {
    return words[Below(words.size())];
  }
  std::string Number(size_t digits) {
    std::string text(1, static_cast<char>('1' + Below(9)));
    while (text.size() < digits) text += static_cast<char>('0' + Below(10));
    return text;
  }

 private:
  SplitMix numbers_;
};

// A fact: what is read before the value, the value, what ends it; the question for it.
struct Needle {
  std::string before, value, after, question;
};

std::string Capital(std::string word) {
  word[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(word[0])));
  return word;
}

Needle InText(const std::string& colour, const std::string& thing, Random& random) {
  const std::string key = colour + " " + thing;
  switch (random.Below(4)) {
    case 0:
      return {" The " + key + " was repaired by", " " + random.Pick(kNames), ".",
              "Who repaired the " + key + "?"};
    case 1:
      return {" Visitors enter the " + key + " through gate", " " + random.Number(3), ".",
              "Through which gate do visitors enter the " + key + "?"};
    case 2:
      return {" The telephone number of the " + key + " is", " " + random.Number(6), ".",
              "What is the telephone number of the " + key + "?"};
    default:
      return {" The " + key + " was built in the year", " 1" + random.Number(3), ".",
              "When was the " + key + " built?"};
  }
}

Needle InRecords(const std::string& colour, const std::string& thing, Random& random) {
  const std::string key = colour + " " + thing;
  return {"\nitem " + key + ", condition good, owner city, shelf", " " + random.Number(5), ".",
          "On which shelf is the item " + key + "?"};
}

Needle InCode(const std::string& colour, const std::string& thing, Random& random) {
  const std::string name = "k" + Capital(colour) + Capital(thing) + "Limit";
  if (random.Below(2) == 0) {
    return {"\nconstexpr int " + name + " =", " " + random.Number(4), ";\n",
            "What is the value of " + name + "?"};
  }
  const std::string option = colour + "_" + thing + "_timeout";
  return {"\n  \"" + option + "\":", " " + random.Number(4), ",\n",
          "What is " + option + " set to?"};
}

// Pieces of a text, one behind the other, round and round.
class TextPieces {
 public:
  explicit TextPieces(std::string_view text) : text_(text) {}
  // About so many bytes, up to the end of a sentence or line if one is near.
  std::string_view Next(size_t bytes) {
    if (at_ >= text_.size()) at_ = 0;
    const size_t begin = at_;
    at_ = std::min(text_.size(), begin + bytes);
    const size_t stop = text_.find_first_of(".\n", at_);
    if (stop != std::string_view::npos && stop < at_ + 200) at_ = stop + 1;
    return text_.substr(begin, at_ - begin);
  }
  void Skip(size_t bytes) { at_ = (at_ + bytes) % text_.size(); }

 private:
  const std::string_view text_;
  size_t at_ = 0;
};

enum class Kind : uint8_t { kText, kRecords, kCode };

class DocumentWriter {
 public:
  DocumentWriter(const NeedleCorpusShape& shape, const EncodeText& encode, NeedleCorpus* corpus)
      : shape_(shape), encode_(encode), corpus_(*corpus) {}

  void Write(Kind kind, TextPieces& text, Random& random) {
    tokens_.clear();
    std::vector<NeedleQuestion> here;
    // A fact every so many tokens; of records each line is one.
    const uint32_t gap =
        kind == Kind::kRecords ? 1 : shape_.document_tokens / (shape_.questions_each + 1);
    uint32_t next = kind == Kind::kRecords ? 0 : gap - gap / 3;
    while (tokens_.size() < shape_.document_tokens) {
      if (kind != Kind::kRecords) encode_(text.Next(160), &tokens_);
      if (tokens_.size() < next) continue;
      next += gap;
      AddNeedle(kind, random, &here);
    }
    tokens_.resize(shape_.document_tokens);
    Keep(here);
  }

 private:
  void AddNeedle(Kind kind, Random& random, std::vector<NeedleQuestion>* here) {
    // Each key once in the corpus, as long as there are keys.
    std::string colour, thing;
    for (int attempt = 0; attempt < 50; ++attempt) {
      colour = random.Pick(kColours);
      thing = random.Pick(kThings);
      if (used_.insert(colour + thing).second) break;
    }
    const Needle needle = kind == Kind::kText      ? InText(colour, thing, random)
                          : kind == Kind::kRecords ? InRecords(colour, thing, random)
                                                   : InCode(colour, thing, random);
    encode_(needle.before, &tokens_);
    const auto value_token = static_cast<uint32_t>(tokens_.size());
    encode_(needle.value + needle.after, &tokens_);
    if (tokens_.size() > shape_.document_tokens) return;
    here->push_back(
        {needle.question, static_cast<uint32_t>(corpus_.documents.size()), value_token});
  }

  // The questions, spread over the document.
  void Keep(const std::vector<NeedleQuestion>& here) {
    const size_t count = std::min<size_t>(here.size(), shape_.questions_each);
    for (size_t i = 0; i < count; ++i) {
      corpus_.questions.push_back(here[(2 * i + 1) * here.size() / (2 * count)]);
    }
    corpus_.documents.push_back(std::move(tokens_));
    tokens_ = {};
  }

  const NeedleCorpusShape shape_;
  const EncodeText& encode_;
  NeedleCorpus& corpus_;
  std::vector<TokenId> tokens_;
  std::unordered_set<std::string> used_;  // keys
};

}  // namespace

NeedleCorpus MakeNeedleCorpus(std::string_view text, const NeedleCorpusShape& shape,
                              const EncodeText& encode) {
  NeedleCorpus corpus;
  Random random(2026);
  TextPieces pieces(text);
  DocumentWriter writer(shape, encode, &corpus);
  for (uint32_t i = 0; i < shape.documents; ++i) {
    const Kind kind = i % 3 == 0 ? Kind::kText : i % 3 == 1 ? Kind::kCode : Kind::kRecords;
    pieces.Skip(text.size() / (shape.documents + 1));
    writer.Write(kind, pieces, random);
  }
  return corpus;
}

}  // namespace corpusd
