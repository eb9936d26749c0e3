// tests/unit/daemon/http_fixture.h -- a daemon in this process that speaks HTTP on a Unix socket
// and a free loopback port, over the fake engine. One thread drives it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/daemon_fixture.h"
#include "tests/support/http_client.h"

namespace corpusd {

class HttpTest : public DaemonTest {
 protected:
  using Json = nlohmann::json;

  HttpTest() { options_.http = {{folder_ + "/h", "", 0}, {"", "127.0.0.1", 0}}; }
  std::string unix_address() const { return daemon_->HttpAddresses()[0]; }
  std::string tcp_address() const { return daemon_->HttpAddresses()[1]; }

  static Json Parse(const std::string& text) { return Json::parse(text, nullptr, false); }
  // The error object of a reply, whose status it must have.
  static Json ErrorOf(const HttpReply& reply, int status) {
    EXPECT_EQ(reply.status, status) << reply.body;
    const Json body = Parse(reply.body);
    EXPECT_TRUE(body.is_object() && body.contains("error")) << reply.body;
    return body.value("error", Json::object());
  }
  void MakeCorpus(const std::string& name) { MakeReady(*Connect(), name, std::string(100, 't')); }
};

}  // namespace corpusd
