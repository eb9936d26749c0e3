// tests/eval/seeded_words.h -- the random numbers, words and codes of made-up texts, the same for
// the same seed on every host, and what all tests of recall share. Values; one thread an object.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "store/base/split_mix.h"

namespace corpusd {

// Depths in a text are counted in tenths of it.
inline constexpr uint32_t kDeciles = 10;

inline constexpr std::array kAdjectives = {
    "amber",  "ancient", "bitter",  "bold",   "brave", "bright", "broken",  "calm",  "clever",
    "cold",   "crimson", "curious", "dark",   "deep",  "dusty",  "eager",   "early", "fierce",
    "gentle", "golden",  "green",   "happy",  "heavy", "hollow", "humble",  "icy",   "jolly",
    "kind",   "late",    "lively",  "lonely", "loud",  "misty",  "narrow",  "noble", "old",
    "pale",   "plain",   "proud",   "quiet",  "rapid", "red",    "rough",   "round", "silent",
    "silver", "sleepy",  "small",   "smooth", "soft",  "steep",  "strange", "sunny", "swift",
    "tall",   "warm",    "white",   "wild",   "wise",  "young"};
inline constexpr std::array kNouns = {
    "anchor", "apple",  "barn",   "basket", "bear",   "bell",     "bird",   "boat",     "book",
    "bottle", "bridge", "candle", "castle", "cloud",  "coat",     "corner", "desert",   "door",
    "farmer", "field",  "fire",   "forest", "fox",    "garden",   "gate",   "glass",    "hammer",
    "harbor", "hill",   "horse",  "house",  "island", "kettle",   "ladder", "lake",     "lamp",
    "letter", "market", "meadow", "mirror", "moon",   "mountain", "needle", "ocean",    "orchard",
    "owl",    "paper",  "pencil", "river",  "road",   "sailor",   "shadow", "shepherd", "ship",
    "stone",  "table",  "tower",  "valley", "window", "wolf"};

class SeededRandom : public SplitMix {
 public:
  using SplitMix::SplitMix;
  // In [0, limit); the bias of a remainder is below 2^-40 for the limits here.
  size_t Below(size_t limit) { return Next() % limit; }
  template <typename Words>
  std::string Pick(const Words& words) {
    return words[Below(words.size())];
  }
};

// `count` decimal digits, the first not 0; hexadecimal ones.
std::string RandomDigits(SeededRandom& random, size_t count);
std::string RandomHexDigits(SeededRandom& random, size_t count);

// Whether the text holds the word with no letter or digit right before or behind it.
bool HoldsWord(std::string_view text, std::string_view word);

}  // namespace corpusd
