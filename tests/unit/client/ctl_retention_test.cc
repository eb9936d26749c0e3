// How corpusctl asks for pins, expiry and priority, and how it shows who holds what.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

v1::Corpus PinnedCorpus() {
  v1::Corpus corpus;
  corpus.set_name("filings");
  corpus.set_pinned(true);
  corpus.set_pin_tier("host");
  corpus.set_pin_owner("alice");
  corpus.set_pin_reason("the audit");
  corpus.set_pin_bytes(3 << 20);
  corpus.set_priority("high");
  return corpus;
}

// Of a model most of whose layers see chunks.
v1::Corpus HybridCorpus() {
  v1::Corpus corpus = PinnedCorpus();
  corpus.set_name("hybrid");
  corpus.set_blocks(1000);
  v1::CorpusPart* part = corpus.add_parts();
  part->set_kind("c8192");
  part->set_blocks(12);
  part->set_bytes(5 << 20);
  corpus.set_keep_all_bytes(uint64_t{7} << 30);
  return corpus;
}

std::vector<v1::Response> Answer(const v1::Request& request) {
  v1::Response response = LastResponse();
  if (request.has_list()) {
    *response.mutable_list()->add_corpora() = PinnedCorpus();
  } else if (request.has_disk_usage()) {
    v1::DiskUsageReply* usage = response.mutable_disk_usage();
    usage->add_tiers()->set_name("disk");
    *usage->add_corpora() = PinnedCorpus();
    *usage->add_corpora() = HybridCorpus();
    v1::PinHolder* holder = usage->add_pin_holders();
    holder->set_owner("alice");
    holder->set_pins(2);
    holder->set_bytes(3 << 20);
    usage->set_pins_total_bytes(uint64_t{9} << 30);
    usage->mutable_write_state()->set_read_only(true);
    usage->mutable_write_state()->set_reason("no space left on device");
    usage->mutable_write_state()->set_since_ms(1789999940000);
    v1::Lease* lease = usage->add_leases();
    lease->set_owner("connection 7");
    lease->set_blocks(3);
    lease->set_bytes(5 << 20);
    lease->set_since_ms(1789999880000);
  } else {
    const bool hybrid = request.has_show() && request.show().name() == "hybrid";
    *response.mutable_corpus() = hybrid ? HybridCorpus() : PinnedCorpus();
  }
  return {response};
}

class CtlRetention : public ::testing::Test {
 protected:
  CtlRun Run(std::vector<std::string> words) {
    words.insert(words.end(), {"--socket", daemon_.socket_path()});
    return RunCtl(words);
  }
  ScriptedDaemon daemon_{Answer};
};

TEST_F(CtlRetention, PinSendsWhatWasSaidAndKeepsTheRest) {
  ASSERT_EQ(
      Run({"pin", "filings", "--tier", "host", "--ttl", "1h", "--reason", "the audit"}).exit_code,
      0);
  ASSERT_EQ(Run({"pin", "filings", "--ttl", "never"}).exit_code, 0);
  const v1::PinRequest first = daemon_.requests()[0].pin();
  EXPECT_EQ(first.tier(), "host");
  EXPECT_EQ(first.ttl_ms(), 3600000u);
  EXPECT_EQ(first.reason(), "the audit");
  EXPECT_TRUE(first.keep() && !first.never_expires());
  const v1::PinRequest second = daemon_.requests()[1].pin();
  EXPECT_TRUE(second.keep() && second.never_expires());
  EXPECT_TRUE(second.tier().empty() && second.reason().empty());
}

TEST_F(CtlRetention, TouchTakesTtlPriorityOrBoth) {
  ASSERT_EQ(Run({"touch", "filings", "--priority", "low"}).exit_code, 0);
  EXPECT_TRUE(daemon_.requests()[0].touch().keep_expiry());
  EXPECT_EQ(daemon_.requests()[0].touch().priority(), "low");
  ASSERT_EQ(Run({"touch", "filings", "--ttl", "2h"}).exit_code, 0);
  EXPECT_FALSE(daemon_.requests()[1].touch().keep_expiry());
  EXPECT_EQ(Run({"touch", "filings"}).exit_code, 2);
  EXPECT_EQ(Run({"touch", "filings", "--priority", "urgent"}).exit_code, 2);
}

TEST_F(CtlRetention, ShowAndListSayWhoPinnedItAndWhy) {
  EXPECT_THAT(Run({"show", "filings"}).out,
              AllOf(HasSubstr("alice"), HasSubstr("the audit"), HasSubstr("3.0 MiB")));
  const Json pinned = Json::parse(Run({"show", "filings", "-o", "json"}).out)["pinned"];
  EXPECT_EQ(pinned["tier"], "host");
  EXPECT_EQ(pinned["owner"], "alice");
  EXPECT_EQ(pinned["reason"], "the audit");
  EXPECT_EQ(pinned["bytes"], 3 << 20);
  EXPECT_THAT(Run({"ls", "-o", "wide"}).out, AllOf(HasSubstr("OWNER"), HasSubstr("the audit")));
  EXPECT_THAT(Run({"ls"}).out, Not(HasSubstr("OWNER")));
}

TEST_F(CtlRetention, DiskUsageListsThePinsOfEachOwner) {
  EXPECT_THAT(Run({"df"}).out,
              AllOf(HasSubstr("PINS OF"), HasSubstr("alice"), HasSubstr("9.0 GiB")));
  const Json usage = Json::parse(Run({"df", "-o", "json"}).out);
  EXPECT_EQ(usage["pins"]["holders"][0]["owner"], "alice");
  EXPECT_EQ(usage["pins"]["total_bytes"], uint64_t{9} << 30);
}

TEST_F(CtlRetention, WhatLayersOfChunksSaveIsShown) {
  EXPECT_THAT(Run({"show", "hybrid"}).out,
              AllOf(HasSubstr("layers c8192"), HasSubstr("5.0 MiB, of 12 of 1,000 blocks"),
                    HasSubstr("all layers kept"), HasSubstr("7.0 GiB")));
  EXPECT_THAT(Run({"show", "filings"}).out, Not(HasSubstr("all layers kept")));
  const Json show = Json::parse(Run({"show", "hybrid", "-o", "json"}).out);
  EXPECT_EQ(show["bytes"]["keep_all"], uint64_t{7} << 30);
  EXPECT_EQ(show["parts"][0]["kind"], "c8192");
  EXPECT_EQ(show["parts"][0]["blocks"], 12);
  EXPECT_THAT(Run({"df"}).out, AllOf(HasSubstr("ALL LAYERS KEPT"), HasSubstr("7.0 GiB")));
  const Json usage = Json::parse(Run({"df", "-o", "json"}).out);
  EXPECT_TRUE(usage["corpora"][0]["keep_all_bytes"].is_null());
  EXPECT_EQ(usage["corpora"][1]["keep_all_bytes"], uint64_t{7} << 30);
}

TEST_F(CtlRetention, DiskUsageSaysThatTheStoreIsReadOnlyAndWhoHoldsBlocks) {
  EXPECT_THAT(Run({"df"}).out,
              AllOf(HasSubstr("read-only since"), HasSubstr("no space left on device"),
                    HasSubstr("leases held: 1, 5.0 MiB"), HasSubstr("connection 7")));
  const Json usage = Json::parse(Run({"df", "-o", "json"}).out);
  EXPECT_EQ(usage["writes"]["read_only"], true);
  EXPECT_EQ(usage["writes"]["reason"], "no space left on device");
  EXPECT_EQ(usage["leases"][0]["owner"], "connection 7");
  EXPECT_EQ(usage["leases"][0]["blocks"], 3);
}

}  // namespace
}  // namespace corpusd::ctl
