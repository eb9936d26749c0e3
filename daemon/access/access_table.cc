#include "daemon/access/access_table.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "daemon/access/tenant_name.h"
#include "daemon/options.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

// Of the system's answer about one user or group; members of a group take most.
constexpr size_t kEntryBytes = size_t{1} << 18;

// "uid:1003" as a number; none for a name.
std::optional<uint32_t> ParseId(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  uint32_t id = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return id;
}

std::optional<uint32_t> FindUser(const std::string& name) {
  if (const auto id = ParseId(name, "uid:")) return id;
  std::vector<char> buffer(kEntryBytes);
  passwd entry{};
  passwd* found = nullptr;
  getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) return std::nullopt;
  return found->pw_uid;
}

std::optional<uint32_t> FindGroup(const std::string& name) {
  if (const auto id = ParseId(name, "gid:")) return id;
  std::vector<char> buffer(kEntryBytes);
  group entry{};
  group* found = nullptr;
  getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) return std::nullopt;
  return found->gr_gid;
}

Status Denied(std::string text) { return {StatusCode::kPermissionDenied, std::move(text)}; }

}  // namespace

// Reads one file and says what of it is wrong.
class AccessTable::Reader {
 public:
  Reader(std::string path, AccessTable* table) : path_(std::move(path)), table_(*table) {}

  // All that is wrong, in the order of the file; none: the table is whole.
  std::vector<Status> Read() {
    auto values = ReadTomlFile(path_);
    if (!values.ok()) return {values.status()};
    values_ = *std::move(values);
    for (const auto& [key, value] : values_) Note(key, Take(key, value.text));
    for (const std::string& tenant : table_.tokens_.Tenants()) {
      Note("tokens", CheckTenant("tokens", tenant));
    }
    for (const auto& [key, tenant] : named_) Note(key, CheckTenant(key, tenant));
    std::stable_sort(problems_.begin(), problems_.end(),
                     [](const auto& one, const auto& other) { return one.first < other.first; });
    std::vector<Status> sorted;
    for (auto& [line, problem] : problems_) sorted.push_back(std::move(problem));
    return sorted;
  }

 private:
  void Note(const std::string& key, Status problem) {
    if (!problem.ok()) problems_.emplace_back(LineOf(key), std::move(problem));
  }
  unsigned LineOf(const std::string& key) const { return values_.at(key).line; }
  Status Wrong(const std::string& key, const std::string& why) const {
    return InvalidArgumentError("'" + key + "' in line " + std::to_string(LineOf(key)) + " of '" +
                                path_ + "' " + why);
  }

  Status Take(const std::string& key, const std::string& text) {
    const size_t dot = key.find('.');
    const std::string section = key.substr(0, dot);
    const std::string name = dot == std::string::npos ? "" : key.substr(dot + 1);
    if (key == "others") return TakeOthers(text);
    if (key == "tokens") return TakeTokens(text);
    if (!name.empty() && section == "tenants") return TakeTenant(key, name, text);
    const bool user = section == "users";
    if (name.empty() || (!user && section != "groups")) {
      return Wrong(key, "is none of others, tokens, [users], [groups] and [tenants]");
    }
    const auto id = user ? FindUser(name) : FindGroup(name);
    if (!id) return Wrong(key, std::string("is no ") + (user ? "user" : "group") + " here");
    ASSIGN_OR_RETURN(Grant grant, ReadGrant(key, text));
    if (user) grant.user = name;
    auto& grants = user ? table_.users_ : table_.groups_;
    if (!grants.emplace(*id, std::move(grant)).second) return Wrong(key, "is named twice");
    return OkStatus();
  }

  // "ROLE" or "ROLE:TENANT"
  Result<Grant> ReadGrant(const std::string& key, const std::string& text) {
    const size_t colon = text.find(':');
    Grant grant;
    if (!ParseRole(text.substr(0, colon), &grant.role)) {
      return Wrong(key, "must be reader, writer or admin, and may have :TENANT behind it");
    }
    if (colon != std::string::npos) {
      grant.tenant = text.substr(colon + 1);
      named_.emplace_back(key, grant.tenant);
      if (grant.tenant.empty()) return Wrong(key, "has an empty tenant");
    }
    return grant;
  }

  Status TakeOthers(const std::string& text) {
    if (text == "none") return OkStatus();
    ASSIGN_OR_RETURN(table_.others_, ReadGrant("others", text));
    return OkStatus();
  }

  Status TakeTokens(const std::string& text) {
    const std::filesystem::path beside = std::filesystem::path(path_).parent_path() / text;
    ASSIGN_OR_RETURN(table_.tokens_, AccessTokens::Read(beside.string()));
    return OkStatus();
  }

  Status TakeTenant(const std::string& key, const std::string& name, const std::string& text) {
    if (!IsTenantName(name)) return Wrong(key, kTenantNameRule);
    const auto bytes = ParseBytes(text);
    if (!bytes.ok()) return Wrong(key, std::string(bytes.status().message()));
    table_.quotas_[name] = *bytes;
    return OkStatus();
  }

  Status CheckTenant(const std::string& key, const std::string& tenant) const {
    if (table_.HasTenant(tenant)) return OkStatus();
    return Wrong(key, "names tenant '" + tenant + "', which has no line in [tenants]");
  }

  const std::string path_;
  AccessTable& table_;
  std::map<std::string, TomlValue> values_;
  std::vector<std::pair<std::string, std::string>> named_;  // keys and the tenants they name
  std::vector<std::pair<unsigned, Status>> problems_;       // with their lines
};

Result<std::shared_ptr<const AccessTable>> AccessTable::Read(const std::string& path,
                                                             uint64_t quota_bytes,
                                                             std::vector<std::string>* problems) {
  auto table = std::make_shared<AccessTable>();
  if (path.empty()) return std::shared_ptr<const AccessTable>(std::move(table));
  table->restricts_ = true;
  std::vector<Status> wrong = Reader(path, table.get()).Read();
  uint64_t sum = 0;
  for (const auto& [tenant, bytes] : table->quotas_) {
    sum += std::min(bytes, UINT64_MAX - sum);
  }
  if (sum > quota_bytes) {
    wrong.push_back(InvalidArgumentError("the tenants in '" + path + "' are promised " +
                                         FormatBytes(sum) + ", and the disk tier has " +
                                         FormatBytes(quota_bytes) + " before it evicts"));
  }
  for (const Status& problem : wrong) {
    if (problems != nullptr) problems->emplace_back(problem.message());
  }
  if (!wrong.empty()) return wrong.front();
  return std::shared_ptr<const AccessTable>(std::move(table));
}

Result<Principal> AccessTable::OfPeer(const Peer& peer) const {
  if (!peer.known) return Denied("the kernel does not say who you are");
  // Not the user's name: whoever asks the system for it may wait.
  const std::string name = "uid:" + std::to_string(peer.uid);
  if (!restricts_) return Principal{name, "", Role::kAdmin};
  const auto user = users_.find(peer.uid);
  if (user != users_.end()) {
    return Principal{user->second.user, user->second.tenant, user->second.role};
  }
  if (peer.admin) return Principal{name, "", Role::kAdmin};
  return OfGroups(peer);
}

Result<Principal> AccessTable::OfGroups(const Peer& peer) const {
  const Grant* strongest = nullptr;
  for (const auto& [gid, grant] : groups_) {
    const bool member = gid == peer.gid ||
                        std::find(peer.groups.begin(), peer.groups.end(), gid) != peer.groups.end();
    if (!member) continue;
    if (strongest != nullptr && strongest->tenant != grant.tenant) {
      return Denied("you are in groups of two tenants: the access table must name the user (" +
                    PeerText(peer) + ")");
    }
    if (strongest == nullptr || grant.role > strongest->role) strongest = &grant;
  }
  if (strongest == nullptr && others_) strongest = &*others_;
  if (strongest == nullptr) {
    return Denied("the access table has no line for you (" + PeerText(peer) + ")");
  }
  return Principal{"uid:" + std::to_string(peer.uid), strongest->tenant, strongest->role};
}

Result<Principal> AccessTable::OfToken(std::string_view token) const {
  std::optional<Principal> principal = tokens_.Find(token);
  if (!principal) return Denied("the bearer token is none that this daemon knows");
  return *std::move(principal);
}

uint64_t AccessTable::QuotaOf(std::string_view tenant) const {
  const auto quota = quotas_.find(tenant);
  return quota == quotas_.end() ? 0 : quota->second;
}

}  // namespace corpusd
