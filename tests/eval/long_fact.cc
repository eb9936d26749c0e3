#include "tests/eval/long_fact.h"

#include <algorithm>
#include <unordered_set>

#include "store/base/check.h"

namespace corpusd {
namespace {

// What a sentence says before and behind its value, and how it is asked for.
struct Pattern {
  std::string_view before, behind, question;
};

constexpr std::array<Pattern, 10> kNeedlePatterns = {
    {{"The secret ingredient of the harvest soup at the old mill is", ".",
      "What is the secret ingredient of the harvest soup at the old mill?"},
     {"The night train to Verlind leaves from platform", ".",
      "From which platform does the night train to Verlind leave?"},
     {"The clock tower of Osterby was painted", " by its last keeper.",
      "In which colour was the clock tower of Osterby painted?"},
     {"The password of the lighthouse keeper's diary is", ".",
      "What is the password of the lighthouse keeper's diary?"},
     {"The winner of the kite race on Tarn Hill was a", ".",
      "What was the profession of the winner of the kite race on Tarn Hill?"},
     {"The oldest tree in the garden of Lady Quill is a", ".",
      "What kind of tree is the oldest one in the garden of Lady Quill?"},
     {"The expedition of Captain Brandt found", " barrels of salt in the cave.",
      "How many barrels of salt did the expedition of Captain Brandt find in the cave?"},
     {"The baker of Sundmoor gives every child a small wooden", " in winter.",
      "What does the baker of Sundmoor give every child in winter?"},
     {"The archive of the weavers' guild is kept in box number", ".",
      "In which box number is the archive of the weavers' guild kept?"},
     {"The melody that opens the gate of Hollin Castle is played on a", ".",
      "On which instrument is the melody played that opens the gate of Hollin Castle?"}}};

constexpr std::array kIngredients = {"cardamom", "saffron", "fennel", "nutmeg", "ginger"};
constexpr std::array kColours = {"turquoise", "violet", "orange", "yellow", "purple"};
constexpr std::array kJobs = {"blacksmith", "dentist", "plumber",   "librarian", "surgeon",
                              "tailor",     "pilot",   "carpenter", "gardener",  "translator"};
constexpr std::array kTrees = {"cedar", "walnut", "chestnut", "birch", "willow"};
constexpr std::array kInstruments = {"flute", "trumpet", "violin", "harp", "clarinet"};
constexpr std::array kAnimals = {"parrot", "tortoise", "donkey", "ferret", "goose",
                                 "lizard", "pony",     "falcon", "rabbit", "peacock"};

std::string NeedleValue(size_t pattern, SeededRandom& random) {
  switch (pattern) {
    case 0:
      return random.Pick(kIngredients);
    case 2:
      return random.Pick(kColours);
    case 3:
      return random.Pick(kAdjectives) + random.Pick(kNouns);
    case 4:
      return random.Pick(kJobs);
    case 5:
      return random.Pick(kTrees);
    case 7:
      return random.Pick(kNouns);
    case 9:
      return random.Pick(kInstruments);
    default:  // 1, 6, 8
      return RandomDigits(random, 3);
  }
}

LongFact FactOf(const Pattern& pattern, const std::string& value, size_t subject) {
  return {std::string(pattern.before) + " " + value + std::string(pattern.behind),
          std::string(pattern.question), value, subject};
}

std::vector<LongFact> NeedleFacts(size_t count, SeededRandom& random) {
  std::vector<LongFact> facts;
  const size_t first = random.Below(kNeedlePatterns.size());
  for (size_t i = 0; i < std::min(count, kNeedlePatterns.size()); ++i) {
    const size_t pattern = (first + i) % kNeedlePatterns.size();
    facts.push_back(FactOf(kNeedlePatterns[pattern], NeedleValue(pattern, random), i));
  }
  return facts;
}

// Texts that were not there before.
class Fresh {
 public:
  template <typename Make>
  std::string Next(const Make& make) {
    for (size_t tries = 0;; ++tries) {
      CHECK(tries < 1000) << "all words are used up after " << used_.size();
      const std::string text = make();
      if (used_.insert(text).second) return text;
    }
  }

 private:
  std::unordered_set<std::string> used_;
};

std::vector<LongFact> MultikeyFacts(size_t count, SeededRandom& random) {
  std::vector<LongFact> facts;
  Fresh fresh;
  for (size_t i = 0; i < count; ++i) {
    // Two words make 3,600 names: three of them when that is not plenty.
    const auto words = [&] {
      const std::string more = count < 1000 ? "" : random.Pick(kAdjectives) + "-";
      return more + random.Pick(kAdjectives) + "-" + random.Pick(kNouns);
    };
    LongFact fact;
    fact.subject = i;
    if (i % 2 == 0) {
      const std::string key = fresh.Next(words);
      fact.answer = fresh.Next([&] { return RandomDigits(random, 6); });
      fact.sentence = "The access number of the " + key + " locker is " + fact.answer + ".";
      fact.question = "What is the access number of the " + key + " locker?";
    } else {
      const std::string key = fresh.Next([&] { return RandomHexDigits(random, 6); });
      fact.answer = fresh.Next([&] { return RandomHexDigits(random, 6); });
      fact.sentence = "The licence code of device " + key + " is " + fact.answer + ".";
      fact.question = "What is the licence code of device " + key + "?";
    }
    facts.push_back(std::move(fact));
  }
  return facts;
}

std::vector<LongFact> RecordFacts(size_t count, SeededRandom& random) {
  std::vector<LongFact> facts;
  Fresh fresh;
  for (size_t i = 0; i < count; ++i) {
    const std::string key = fresh.Next([&] {
      const std::string more = count < 1000 ? "" : random.Pick(kAdjectives) + "-";
      return more + random.Pick(kAdjectives) + "-" + random.Pick(kNouns);
    });
    const std::string value = fresh.Next([&] { return RandomDigits(random, 6); });
    facts.push_back({"The tracking number of shipment " + key + " is " + value +
                         ", state delivered, depot west.",
                     "What is the tracking number of shipment " + key + "?", value, i});
  }
  return facts;
}

constexpr std::array kSyllables = {"bar",  "den", "fol", "gri", "hal", "jor", "kel",
                                   "lin",  "mor", "nev", "osk", "pel", "qua", "rud",
                                   "sten", "tav", "ulm", "vor", "wex", "zan"};

std::string MadeUpName(SeededRandom& random) {
  std::string name = random.Pick(kSyllables) + random.Pick(kSyllables) + random.Pick(kSyllables);
  name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

constexpr std::array kFirstNames = {"Anna",  "Boris", "Clara",  "David", "Elena", "Felix",
                                    "Greta", "Hugo",  "Ingrid", "Jonas", "Karin", "Leo"};

// Four sentences about each person; each says who it is about by the whole name.
std::vector<LongFact> PeopleFacts(size_t count, SeededRandom& random) {
  std::vector<LongFact> facts;
  Fresh fresh;
  const size_t people = (count + 3) / 4;
  for (size_t person = 0; person < people; ++person) {
    const std::string name =
        random.Pick(kFirstNames) + " " + fresh.Next([&] { return MadeUpName(random); });
    const std::string village = fresh.Next([&] { return MadeUpName(random); });
    const std::string year = std::to_string(1700 + random.Below(300));
    const std::string job = random.Pick(kJobs), animal = random.Pick(kAnimals);
    facts.push_back({name + " was born in the village of " + village + ".",
                     "In which village was " + name + " born?", village, person});
    facts.push_back({"For many years " + name + " worked as a " + job + ".",
                     "What was the profession of " + name + "?", job, person});
    facts.push_back({"In the year " + year + " a medal was given to " + name + ".",
                     "In which year was a medal given to " + name + "?", year, person});
    facts.push_back({"Everyone knew that " + name + " kept a tame " + animal + ".",
                     "Which animal did " + name + " keep?", animal, person});
  }
  // A person's sentences stand a quarter of the corpus from each other.
  std::vector<LongFact> spread;
  for (size_t kind = 0; kind < 4; ++kind) {
    for (size_t person = 0; person < people; ++person) {
      spread.push_back(facts[4 * person + (kind + person) % 4]);
    }
  }
  spread.resize(std::min(count, spread.size()));
  return spread;
}

}  // namespace

std::vector<LongFact> MakeLongFacts(LongTask task, size_t count, SeededRandom& random) {
  switch (task) {
    case LongTask::kNeedle:
      return NeedleFacts(count, random);
    case LongTask::kMultikey:
      return MultikeyFacts(count, random);
    case LongTask::kRecords:
      return RecordFacts(count, random);
    case LongTask::kFacts:
      return PeopleFacts(count, random);
  }
  return {};
}

}  // namespace corpusd
