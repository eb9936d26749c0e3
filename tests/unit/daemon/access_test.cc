// Who may do what: the table, the tokens, the names, the secret; without a daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "daemon/access/access_control.h"
#include "daemon/access/reply_scope.h"
#include "daemon/access/request_scope.h"
#include "daemon/access/tenant_quota.h"
#include "daemon/access/tenant_secret.h"
#include "tests/support/fake_block_store.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kDisk = uint64_t{1} << 40;

Peer PeerOfUser(uint32_t uid, std::vector<uint32_t> groups = {}) {
  Peer peer;
  peer.known = true;
  peer.uid = uid;
  peer.gid = 100000 + uid;
  peer.groups = std::move(groups);
  return peer;
}

std::string HashText(const std::string& salt, const std::string& token) {
  Sha256 hash;
  hash.Update(salt);
  hash.Update(token);
  return HexText(hash.Finish());
}

class AccessTableTest : public ::testing::Test {
 protected:
  Result<std::shared_ptr<const AccessTable>> Table(const std::string& text,
                                                   uint64_t quota_bytes = kDisk) {
    std::ofstream(folder_.File("access.toml")) << text;
    return AccessTable::Read(folder_.File("access.toml"), quota_bytes);
  }
  void WriteTokens(const std::string& text, mode_t mode = 0600) {
    std::ofstream(folder_.File("tokens")) << text;
    ASSERT_EQ(chmod(folder_.File("tokens").c_str(), mode), 0);
  }
  TempDir folder_;
};

TEST_F(AccessTableTest, WithoutATableWhoeverConnectsIsAnAdmin) {
  const auto table = AccessTable::Read("", kDisk);
  ASSERT_TRUE(table.ok());
  EXPECT_FALSE((*table)->restricts());
  const auto principal = (*table)->OfPeer(PeerOfUser(54321));
  ASSERT_TRUE(principal.ok());
  EXPECT_TRUE(principal->IsOperator());
  EXPECT_EQ(principal->name, "uid:54321");
  EXPECT_FALSE((*table)->OfPeer({}).ok()) << "not a peer that the kernel does not know";
  EXPECT_FALSE((*table)->OfToken("").ok());
  EXPECT_EQ((*table)->QuotaOf(""), 0u);
}

TEST_F(AccessTableTest, UsersGoBeforeGroupsAndGroupsBeforeOthers) {
  const auto table = Table(R"(
      others = "reader"
      [users]
      "uid:54001" = "reader:acme"
      "uid:54002" = "writer"
      [groups]
      "gid:54100" = "writer:acme"
      "gid:54101" = "reader:acme"
      "gid:54102" = "reader"
      [tenants]
      acme = "1GiB"
      globex = "0"
  )");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  const auto of = [&](uint32_t uid, std::vector<uint32_t> groups = {}) {
    auto principal = (*table)->OfPeer(PeerOfUser(uid, std::move(groups)));
    return principal.ok() ? *principal
                          : Principal{std::string(principal.status().message()), "?", {}};
  };
  EXPECT_EQ(of(54001, {54102}), (Principal{"uid:54001", "acme", Role::kReader}));
  EXPECT_EQ(of(54002), (Principal{"uid:54002", "", Role::kWriter}));
  EXPECT_EQ(of(54003, {54101, 54100}), (Principal{"uid:54003", "acme", Role::kWriter}));
  EXPECT_EQ(of(54003, {54102}), (Principal{"uid:54003", "", Role::kReader}));
  EXPECT_EQ(of(54003), (Principal{"uid:54003", "", Role::kReader})) << "others";
  EXPECT_THAT(of(54003, {54101, 54102}).name, HasSubstr("groups of two tenants"));
  Peer primary = PeerOfUser(54004);
  primary.gid = 54100;
  EXPECT_EQ((*table)->OfPeer(primary)->role, Role::kWriter) << "the primary group counts";
  Peer root = PeerOfUser(0);
  root.admin = true;
  EXPECT_TRUE((*table)->OfPeer(root)->IsOperator());
  EXPECT_EQ((*table)->QuotaOf("acme"), uint64_t{1} << 30);
  EXPECT_TRUE((*table)->HasTenant("globex"));
  EXPECT_FALSE((*table)->HasTenant("initech"));
}

TEST_F(AccessTableTest, WhomNothingNamesIsDenied) {
  const auto table = Table("[users]\n\"uid:54001\" = \"admin\"\n\"uid:0\" = \"reader\"\n");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  const auto denied = (*table)->OfPeer(PeerOfUser(54002));
  EXPECT_EQ(denied.status().code(), StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(denied.status().message()), HasSubstr("uid:54002"));
  Peer root = PeerOfUser(0);
  root.admin = true;
  EXPECT_EQ((*table)->OfPeer(root)->role, Role::kReader) << "a line of his own binds root, too";
}

TEST_F(AccessTableTest, MistakesAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"other = \"none\"", "'other'"},
      {"others = \"king\"", "reader, writer or admin"},
      {"[users]\nnobody-here-has-this-name = \"reader\"", "is no user here"},
      {"[groups]\nnobody-here-has-this-name = \"reader\"", "is no group here"},
      {"[users]\n\"uid:1\" = \"reader:acme\"", "no line in [tenants]"},
      {"[users]\n\"uid:1\" = \"reader:\"", "empty tenant"},
      {"[users]\n\"uid:x\" = \"reader\"", "is no user here"},
      {"[tenants]\n\"a/b\" = \"1GiB\"", "must have 1 to 64 letters"},
      {"[tenants]\nacme = \"much\"", "acme"},
      {"[roles]\na = \"reader\"", "'roles.a'"},
      {"[users\n", "line 1"},
      {"tokens = \"absent\"", "cannot read the tokens"}};
  for (const auto& [text, why] : cases) {
    const auto table = Table(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(why)) << text;
  }
  const std::string two = "[tenants]\na = \"600GiB\"\nb = \"500GiB\"\n";
  EXPECT_FALSE(Table(two).ok()) << "more than there is was promised";
  EXPECT_TRUE(Table(two, 2 * kDisk).ok());
}

TEST_F(AccessTableTest, TokensAreTakenFromTheirHash) {
  const std::string salt = "0123456789abcdef";  // hex of 8 bytes
  const std::string bytes = "\x01\x23\x45\x67\x89\xab\xcd\xef";
  WriteTokens("# of the dashboard\n\ndash:reader:acme:" + salt + ":" +
              HashText(bytes, "secret-one") + "\nci:admin::" + salt + ":" +
              HashText(bytes, "secret-two") + "\r\n");
  const auto table = Table("tokens = \"tokens\"\n[tenants]\nacme = \"0\"\n");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ(*(*table)->OfToken("secret-one"), (Principal{"token:dash", "acme", Role::kReader}));
  EXPECT_EQ(*(*table)->OfToken("secret-two"), (Principal{"token:ci", "", Role::kAdmin}));
  for (const char* const wrong : {"", "secret", "secret-one ", "secret-on", "SECRET-ONE"}) {
    EXPECT_EQ((*table)->OfToken(wrong).status().code(), StatusCode::kPermissionDenied) << wrong;
  }
  // The hash is no token.
  EXPECT_FALSE((*table)->OfToken(HashText(bytes, "secret-one")).ok());
}

TEST_F(AccessTableTest, TokenFilesAreReadWithCare) {
  const std::string good = ":0123456789abcdef:" + std::string(64, 'a');
  const std::string table = "tokens = \"tokens\"\n";
  WriteTokens("a:reader:" + good);
  EXPECT_TRUE(Table(table).ok()) << Table(table).status().ToString();
  WriteTokens("a:reader:" + good, 0640);
  EXPECT_EQ(Table(table).status().code(), StatusCode::kPermissionDenied);
  const std::string secret = std::string(64, 'b');
  for (const std::string& line :
       {"a:reader:0123456789abcdef:" + secret, "a:reader:" + good + ":x", ":reader:" + good,
        "a b:reader:" + good, "a:king:" + good, "a:reader:" + good.substr(1),
        "a:reader::0123:" + secret, "a:reader::0123456789abcdeF:" + secret,
        "a:reader::0123456789abcdef:" + secret.substr(1), "a:reader:../x" + good,
        "a:reader:acme" + good}) {
    WriteTokens("# one\n" + line);
    const auto refused = Table(table);
    ASSERT_FALSE(refused.ok()) << line;
    EXPECT_THAT(std::string(refused.status().message()), ::testing::Not(HasSubstr(secret)));
  }
}

TEST_F(AccessTableTest, AuthenticateTakesTokensBeforePeers) {
  const std::string bytes = "\x01\x23\x45\x67\x89\xab\xcd\xef";
  WriteTokens("dash:reader:acme:0123456789abcdef:" + HashText(bytes, "secret"));
  ASSERT_TRUE(Table("tokens = \"tokens\"\n[users]\n\"uid:54001\" = \"writer\"\n"
                    "[tenants]\nacme = \"0\"\n")
                  .ok());
  AccessControl access;
  ASSERT_TRUE(access.Open(folder_.File("access.toml"), kDisk).ok());
  const Peer peer = PeerOfUser(54001);
  EXPECT_EQ(access.Authenticate({peer, std::nullopt, ""})->role, Role::kWriter);
  EXPECT_EQ(access.Authenticate({peer, "secret", ""})->tenant, "acme");
  EXPECT_FALSE(access.Authenticate({peer, "corpusd_wrong", ""}).ok()) << "one that was good once";
  EXPECT_EQ(access.Authenticate({peer, "sk-none", ""})->role, Role::kWriter)
      << "what some clients send always";
  EXPECT_FALSE(access.Authenticate({std::nullopt, "sk-none", ""}).ok());
  EXPECT_FALSE(access.Authenticate({std::nullopt, std::nullopt, ""}).ok());
  // What the file says now counts from now on; a broken file changes nothing.
  ASSERT_TRUE(Table("[users]\n\"uid:54001\" = \"reader\"\n").ok());
  ASSERT_TRUE(access.Reload().ok());
  EXPECT_EQ(access.Authenticate({peer, std::nullopt, ""})->role, Role::kReader);
  EXPECT_FALSE(access.Authenticate({std::nullopt, "secret", ""}).ok());
  ASSERT_FALSE(Table("[users]\n\"uid:54001\" = \"god\"\n").ok());
  EXPECT_FALSE(access.Reload().ok());
  EXPECT_EQ(access.Authenticate({peer, std::nullopt, ""})->role, Role::kReader);
}

TEST(AccessControl, WithoutATableTokensAreNotLookedAt) {
  const AccessControl access;
  EXPECT_TRUE(access.Authenticate({PeerOfUser(54001), "sk-none", ""})->IsOperator());
  EXPECT_TRUE(access.Authenticate({std::nullopt, "sk-none", ""})->IsOperator());
  EXPECT_FALSE(access.Authenticate({Peer{}, std::nullopt, ""}).ok());
}

class ScopeTest : public AccessTableTest {
 protected:
  ScopeTest() { table_ = *Table("[tenants]\nacme = \"0\"\nglobex = \"0\"\n"); }
  std::string Whole(const Principal& principal, const std::string& name) {
    const auto whole = WholeName(principal, *table_, name);
    return whole.ok() ? *whole : std::string(StatusCodeText(whole.status().code()));
  }
  std::shared_ptr<const AccessTable> table_;
  const Principal operator_{"root", "", Role::kAdmin};
  const Principal own_{"bob", "", Role::kWriter};
  const Principal acme_{"alice", "acme", Role::kAdmin};
};

TEST_F(ScopeTest, NamesAreThoseOfTheTenant) {
  EXPECT_EQ(Whole(own_, "x"), "x");
  EXPECT_EQ(Whole(acme_, "x"), "acme/x");
  EXPECT_EQ(Whole(acme_, "x~previous"), "acme/x~previous");
  EXPECT_EQ(Whole(operator_, "x"), "x");
  EXPECT_EQ(Whole(operator_, "acme/x"), "acme/x");
  EXPECT_EQ(Whole(operator_, "initech/x"), "not_found");
  EXPECT_EQ(Whole(operator_, "/x"), "not_found");
  for (const char* const name : {"acme/x", "globex/x", "/x", "../x", "x/", "//"}) {
    EXPECT_EQ(Whole(own_, name), "not_found") << name;
    EXPECT_EQ(Whole(acme_, name), "not_found") << name;
  }
}

// Every request of the protocol has a role, and every text called name is scoped.
TEST_F(ScopeTest, EveryRequestIsKnown) {
  const auto* const message = v1::Request::descriptor();
  const auto* const body = message->FindOneofByName("body");
  ASSERT_NE(body, nullptr);
  int named = 0;
  for (int i = 0; i < body->field_count(); ++i) {
    const auto* const field = body->field(i);
    const auto fill = [&](v1::Request* request) {
      auto* const inner = request->GetReflection()->MutableMessage(request, field);
      for (const char* const key : {"name", "from", "to"}) {
        const auto* const text = inner->GetDescriptor()->FindFieldByName(key);
        // Of evict and warm these are tiers.
        const bool tier = field->name() == "evict" || field->name() == "warm";
        if (text == nullptr || (tier && std::string(key) != "name")) continue;
        inner->GetReflection()->SetString(inner, text, "docs");
      }
    };
    v1::Request request;
    fill(&request);
    const Status admitted = ScopeRequest(acme_, *table_, &request);
    const std::string text = request.DebugString();
    if (text.find("docs") != std::string::npos && admitted.ok()) {
      ++named;
      EXPECT_THAT(text, HasSubstr("\"acme/docs\"")) << field->name();
      EXPECT_THAT(text, ::testing::Not(HasSubstr("\"docs\""))) << field->name();
    }
    v1::Request again;
    fill(&again);
    EXPECT_TRUE(ScopeRequest(operator_, *table_, &again).ok()) << field->name();
  }
  EXPECT_EQ(named, 14);
}

TEST_F(ScopeTest, RolesAreLadders) {
  const auto allowed = [&](Role role, const std::string& tenant, auto&& change) {
    v1::Request request;
    change(&request);
    return ScopeRequest({"x", tenant, role}, *table_, &request).ok();
  };
  const auto ask = [](v1::Request* r) { r->mutable_ask()->set_name("a"); };
  const auto remove = [](v1::Request* r) { r->mutable_remove()->set_name("a"); };
  const auto import = [](v1::Request* r) { r->mutable_import_begin()->set_name("a"); };
  const auto scrub = [](v1::Request* r) { r->mutable_scrub(); };
  const auto evict_one = [](v1::Request* r) { r->mutable_evict()->set_name("a"); };
  const auto evict_all = [](v1::Request* r) { r->mutable_evict()->set_all(true); };
  for (const std::string tenant : {"", "acme"}) {
    EXPECT_TRUE(allowed(Role::kReader, tenant, ask));
    EXPECT_FALSE(allowed(Role::kReader, tenant, remove));
    EXPECT_FALSE(allowed(Role::kReader, tenant, evict_one));
    EXPECT_TRUE(allowed(Role::kWriter, tenant, remove));
    EXPECT_TRUE(allowed(Role::kWriter, tenant, evict_one));
    EXPECT_FALSE(allowed(Role::kWriter, tenant, import));
    EXPECT_TRUE(allowed(Role::kAdmin, tenant, import));
    EXPECT_FALSE(allowed(Role::kWriter, tenant, scrub));
    EXPECT_EQ(allowed(Role::kAdmin, tenant, scrub), tenant.empty()) << "of all tenants' blocks";
    EXPECT_EQ(allowed(Role::kAdmin, tenant, evict_all), tenant.empty());
  }
  v1::Request rename;
  rename.mutable_rename()->set_from("acme/a");
  rename.mutable_rename()->set_to("a");
  EXPECT_EQ(ScopeRequest(operator_, *table_, &rename).code(), StatusCode::kInvalidArgument);
}

TEST_F(ScopeTest, ResponsesHaveNothingOfOtherTenants) {
  v1::Response response;
  for (const char* const name : {"x", "acme/x", "acme/y", "globex/z"}) {
    response.mutable_list()->add_corpora()->set_name(name);
  }
  v1::Response own = response, acme = response, all = response;
  ScopeResponse(own_, &own);
  ASSERT_EQ(own.list().corpora_size(), 1);
  EXPECT_EQ(own.list().corpora(0).name(), "x");
  ScopeResponse(acme_, &acme);
  ASSERT_EQ(acme.list().corpora_size(), 2);
  EXPECT_EQ(acme.list().corpora(0).name(), "x");
  EXPECT_EQ(acme.list().corpora(1).name(), "y");
  ScopeResponse(operator_, &all);
  EXPECT_EQ(all.list().corpora_size(), 4);
  v1::Response job;
  job.mutable_job()->set_corpus("globex/z");
  job.mutable_job()->set_done_tokens(7);
  ScopeResponse(acme_, &job);
  EXPECT_EQ(job.job().ByteSizeLong(), 0u);
  v1::Response error;
  error.mutable_error()->set_message("corpus 'acme/x' is not ready: corpusctl wait acme/x");
  ScopeResponse(acme_, &error);
  EXPECT_EQ(error.error().message(), "corpus 'x' is not ready: corpusctl wait x");
  EXPECT_EQ(WithoutTenant("/srv/acme/x, bigacme/x and acme/y", "acme"),
            "/srv/acme/x, bigacme/x and y");
}

TEST(TenantSecret, IsMadeOnceForItsOwnerAlone) {
  const TempDir folder;
  const std::string path = folder.File("tenant.secret");
  const auto made = ReadTenantSecret(folder.path());
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ(made->size(), 64u);
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  EXPECT_EQ(*ReadTenantSecret(folder.path()), *made);
  const TempDir other;
  EXPECT_NE(*ReadTenantSecret(other.path()), *made);
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  EXPECT_EQ(ReadTenantSecret(folder.path()).status().code(), StatusCode::kPermissionDenied);
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  std::ofstream(path, std::ios::app) << "x";
  EXPECT_EQ(ReadTenantSecret(folder.path()).status().code(), StatusCode::kCorruption);
  std::ofstream(path, std::ios::trunc) << "";
  EXPECT_EQ(ReadTenantSecret(folder.path()).status().code(), StatusCode::kCorruption);
}

TEST(TenantQuota, ChargesWholeCorporaAndSharedBlocksOnce) {
  FakeBlockStore store(std::make_shared<FakeDisk>());
  const auto add = [&](const std::string& name, uint64_t whole, uint8_t first, uint8_t blocks) {
    CorpusRecord record;
    record.name = name;
    record.whole_blocks = whole;
    record.block_bytes = 1000;
    for (uint8_t i = 0; i < blocks; ++i) {
      Digest digest{};
      digest.bytes[0] = static_cast<uint8_t>(first + i);
      record.chain.push_back(digest);
    }
    ASSERT_TRUE(store.CreateCorpus(record, {}).ok());
  };
  constexpr uint64_t kBlock = 1000 + 8192;
  add("acme/a", 10, 0, 4);  // four blocks are there, six will come
  add("acme/b", 5, 2, 5);   // two of its blocks are a's
  add("globex/c", 99, 0, 9);
  add("d", 1, 0, 1);
  EXPECT_EQ(TenantBytes(store, "acme"), 13 * kBlock);
  EXPECT_EQ(TenantBytes(store, "globex"), 99 * kBlock);
  EXPECT_EQ(TenantBytes(store, ""), kBlock);
  EXPECT_TRUE(CheckTenantQuota(store, "acme", 0, UINT64_MAX).ok());
  EXPECT_TRUE(CheckTenantQuota(store, "acme", 14 * kBlock, kBlock).ok());
  EXPECT_EQ(CheckTenantQuota(store, "acme", 14 * kBlock, kBlock + 1).code(),
            StatusCode::kResourceExhausted);
  EXPECT_FALSE(CheckTenantQuota(store, "acme", 12 * kBlock, 0).ok());
}

}  // namespace
}  // namespace corpusd
