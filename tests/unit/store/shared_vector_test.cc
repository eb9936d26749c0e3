#include "store/base/shared_vector.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string>
#include <thread>

namespace corpusd {
namespace {

using Strings = SharedVector<std::string>;

TEST(SharedVector, StandsForAVector) {
  const std::vector<std::string> words = {"a", "b", "c"};
  Strings shared = words;
  EXPECT_EQ(shared, words);
  EXPECT_EQ(std::vector<std::string>(shared), words);
  EXPECT_EQ(shared.size(), 3u);
  EXPECT_EQ(shared.front() + shared[1] + shared.back(), "abc");
  EXPECT_EQ(*shared.rbegin(), "c");
  shared.push_back("d");
  shared.append(words.begin(), words.begin() + 2);
  EXPECT_EQ(shared, (Strings{"a", "b", "c", "d", "a", "b"}));
  shared.pop_back();
  shared.resize(2);
  EXPECT_EQ(shared, (Strings{"a", "b"}));
  shared.clear();
  EXPECT_TRUE(shared.empty());
  EXPECT_EQ(shared, Strings());
}

TEST(SharedVector, CopiesShareUntilTwoOfThemAppend) {
  Strings first = {"a", "b"};
  first.push_back("c");  // with room for more
  Strings second = first;
  EXPECT_EQ(second.data(), first.data());
  second.push_back("d");
  EXPECT_EQ(second.data(), first.data()) << "appended behind what both have";
  EXPECT_EQ(first.size(), 3u);
  first.push_back("e");
  EXPECT_NE(second.data(), first.data());
  EXPECT_EQ(first, (Strings{"a", "b", "c", "e"}));
  EXPECT_EQ(second, (Strings{"a", "b", "c", "d"}));
  EXPECT_EQ(first.CommonPrefix(second), 3u);
  Strings shorter = second;
  shorter.resize(1);
  shorter.push_back("z");
  EXPECT_EQ(second, (Strings{"a", "b", "c", "d"}));
  EXPECT_EQ(shorter, (Strings{"a", "z"}));
}

TEST(SharedVector, WhatWasMovedFromIsEmpty) {
  Strings first = {"a"};
  const Strings second = std::move(first);
  EXPECT_TRUE(first.empty());  // NOLINT: that is the point
  EXPECT_EQ(first.begin(), first.end());
  EXPECT_EQ(second.size(), 1u);
}

TEST(SharedVector, AgreesWithVectorsWhateverIsDone) {
  std::mt19937 random(7);
  std::vector<std::pair<SharedVector<int>, std::vector<int>>> pairs(4);
  for (int step = 0; step < 20000; ++step) {
    auto& [shared, plain] = pairs[random() % pairs.size()];
    switch (random() % 5) {
      case 0:
        shared = pairs[0].first;
        plain = pairs[0].second;
        break;
      case 1:
        shared.resize(plain.size() / 2);
        plain.resize(plain.size() / 2);
        break;
      case 2: {
        const std::vector<int> more(random() % 9, step);
        shared.append(more.begin(), more.end());
        plain.insert(plain.end(), more.begin(), more.end());
        break;
      }
      default:
        shared.push_back(step);
        plain.push_back(step);
    }
    ASSERT_EQ(shared, plain);
  }
}

// One grows while others read what they hold, as records of the catalogue do.
TEST(SharedVector, ReadersAreNotDisturbedByWhoAppends) {
  SharedVector<int> grown;
  for (int i = 0; i < 1000; ++i) grown.push_back(i);
  std::vector<std::jthread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([copy = grown] {
      for (int round = 0; round < 100; ++round) {
        ASSERT_EQ(std::accumulate(copy.begin(), copy.end(), 0), 999 * 500);
      }
    });
  }
  for (int i = 1000; i < 5000; ++i) grown.push_back(i);
  EXPECT_EQ(grown.size(), 5000u);
}

}  // namespace
}  // namespace corpusd
