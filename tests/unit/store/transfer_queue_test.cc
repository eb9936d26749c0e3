#include "store/transfer_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>

namespace corpusd {
namespace {

TEST(TransferQueue, QuestionsGoBeforeTheBackgroundAndEachInOrder) {
  TransferQueue queue({.threads = 1});
  std::promise<void> gate;
  std::promise<void> done;
  std::string order;
  queue.Submit(TransferPriority::kBackground, {{1, [&] { gate.get_future().wait(); }}});
  const auto note = [&](char c) { return TransferQueue::Transfer{1, [&, c] { order += c; }}; };
  std::vector<TransferQueue::Transfer> background = {note('c'), note('d')};
  background.push_back({1, [&] { done.set_value(); }});
  queue.Submit(TransferPriority::kBackground, std::move(background));
  queue.Submit(TransferPriority::kQuestion, {note('a'), note('b')});
  gate.set_value();
  done.get_future().wait();
  EXPECT_EQ(order, "abcd");
}

TEST(TransferQueue, BytesInFlightStayUnderTheBudget) {
  TransferQueue queue({.threads = 4, .inflight_bytes = 100});
  std::atomic<uint64_t> inflight{0};
  std::atomic<uint64_t> most{0};
  std::atomic<int> left{200};
  std::promise<void> done;
  std::vector<TransferQueue::Transfer> transfers;
  for (int i = 0; i < 200; ++i) {
    transfers.push_back({40, [&] {
                           const uint64_t now = inflight.fetch_add(40) + 40;
                           uint64_t seen = most.load();
                           while (seen < now && !most.compare_exchange_weak(seen, now)) {
                           }
                           inflight.fetch_sub(40);
                           if (left.fetch_sub(1) == 1) done.set_value();
                         }});
  }
  queue.Submit(TransferPriority::kQuestion, std::move(transfers));
  done.get_future().wait();
  EXPECT_LE(most.load(), 100u);
  EXPECT_LE(queue.load().inflight_bytes_max, 100u);
  EXPECT_EQ(queue.load().waiting, 0u);
}

TEST(TransferQueue, AMoveLargerThanTheBudgetRunsAlone) {
  TransferQueue queue({.threads = 4, .inflight_bytes = 100});
  std::promise<void> begun;
  std::promise<void> gate;
  std::promise<void> after;
  queue.Submit(TransferPriority::kQuestion, {{1000,
                                              [&] {
                                                begun.set_value();
                                                gate.get_future().wait();
                                              }},
                                             {1, [&] { after.set_value(); }}});
  begun.get_future().wait();
  EXPECT_EQ(queue.load().inflight_bytes, 1000u);
  EXPECT_EQ(queue.load().waiting, 1u);
  gate.set_value();
  after.get_future().wait();
}

TEST(TransferQueue, TheWindowSlides) {
  // Two fit; the third begins when one of them ends, not when both do.
  TransferQueue queue({.threads = 4, .inflight_bytes = 2});
  std::promise<void> gate_a;
  std::promise<void> gate_b;
  std::promise<void> third;
  queue.Submit(TransferPriority::kQuestion, {{1, [&] { gate_a.get_future().wait(); }},
                                             {1, [&] { gate_b.get_future().wait(); }},
                                             {1, [&] { third.set_value(); }}});
  gate_b.set_value();
  third.get_future().wait();
  gate_a.set_value();
}

TEST(TransferQueue, WhatWaitsIsDroppedAtTheEnd) {
  std::atomic<int> ran{0};
  const auto held = std::make_shared<int>(1);
  std::promise<void> begun;  // they outlive the queue, whose thread may still be at them
  std::promise<void> gate;
  {
    TransferQueue queue({.threads = 1});
    queue.Submit(TransferPriority::kQuestion, {{1, [&] {
                                                  begun.set_value();
                                                  gate.get_future().wait();
                                                }}});
    begun.get_future().wait();
    queue.Submit(TransferPriority::kQuestion, {{1, [&ran, held] { ++ran; }}});
    EXPECT_EQ(held.use_count(), 2);
    // The gate opens once the destructor has told the thread to stop, or before: either way the
    // second move may run only if it began first.
    gate.set_value();
  }
  EXPECT_LE(ran.load(), 1);
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace corpusd
