#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "client/ctl/cli.h"
#include "client/ctl/commands.h"
#include "client/ctl/completion.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

std::string ShareCell(const v1::Tier& tier) {
  if (tier.capacity_bytes() == 0) return "-";
  const double share =
      100.0 * static_cast<double>(tier.used_bytes()) / static_cast<double>(tier.capacity_bytes());
  return std::to_string(static_cast<int>(share)) + "%";
}

// What holds up writing or freeing, a line each; nothing when all is well.
void PrintStoreNotes(const CommandContext& context, const v1::DiskUsageReply& usage) {
  const int64_t now_ms = context.console.now_ms();
  const v1::WriteState& writes = usage.write_state();
  if (writes.read_only()) {
    context.console.out << "\nread-only since " << FormatTimestamp(writes.since_ms()) << " ("
                        << FormatAge(writes.since_ms(), now_ms) << "): " << writes.reason() << "; "
                        << FormatCount(writes.refused())
                        << " calls refused; free space or mend the disk\n";
  }
  const v1::Evictions& evictions = usage.evictions();
  if (evictions.passes() > 0 || evictions.refusals() > 0) {
    context.console.out << "\nevicted since the daemon's start: " << FormatCount(evictions.blocks())
                        << " blocks, " << FormatBytes(evictions.bytes());
    if (evictions.passes() > 0) {
      context.console.out << "; the last " << FormatAge(evictions.last_ms(), now_ms) << ": "
                          << evictions.last_text();
    }
    if (evictions.refusals() > 0) {
      context.console.out << "; " << FormatCount(evictions.refusals())
                          << " times too little could go";
    }
    context.console.out << '\n';
  }
  if (usage.leases().empty()) return;
  uint64_t bytes = 0;
  for (const v1::Lease& lease : usage.leases()) bytes += lease.bytes();
  const v1::Lease& oldest = usage.leases(0);
  context.console.out << "\nleases held: " << FormatCount(usage.leases_size()) << ", "
                      << FormatBytes(bytes) << "; the oldest since "
                      << FormatAge(oldest.since_ms(), now_ms) << " by " << oldest.owner() << '\n';
}

// Who holds how much by pins, and of what.
void PrintPinHolders(const CommandContext& context, const v1::DiskUsageReply& usage) {
  if (usage.pin_holders().empty()) return;
  context.console.out << '\n';
  const uint64_t quota = usage.pins_owner_bytes();
  TablePrinter table(
      {{"PINS OF"}, {"PINS", Align::kRight}, {"HELD", Align::kRight}, {"QUOTA", Align::kRight}});
  uint64_t pins = 0, bytes = 0;
  for (const v1::PinHolder& holder : usage.pin_holders()) {
    pins += holder.pins();
    bytes += holder.bytes();
    table.AddRow({holder.owner().empty() ? "-" : holder.owner(), FormatCount(holder.pins()),
                  FormatBytes(holder.bytes()), quota == 0 ? "-" : FormatBytes(quota)});
  }
  table.AddRow(
      {"all", FormatCount(pins), FormatBytes(bytes), FormatBytes(usage.pins_total_bytes())});
  table.Print(context.console.out, StyleOf(context));
}

void PrintDiskUsageTables(const CommandContext& context, const v1::DiskUsageReply& usage) {
  const TableStyle style = StyleOf(context);
  TablePrinter tiers({{"TIER"},
                      {"CAPACITY", Align::kRight},
                      {"USED", Align::kRight},
                      {"USE%", Align::kRight},
                      {"PINNED", Align::kRight},
                      {"FREE", Align::kRight}});
  for (const v1::Tier& tier : usage.tiers()) {
    tiers.AddRow({tier.name(), FormatBytes(tier.capacity_bytes()), FormatBytes(tier.used_bytes()),
                  ShareCell(tier), FormatBytes(tier.pinned_bytes()),
                  FormatBytes(tier.free_bytes())});
  }
  tiers.Print(context.console.out, style);
  PrintStoreNotes(context, usage);
  PrintPinHolders(context, usage);
  if (usage.corpora().empty()) return;
  context.console.out << '\n';
  const bool parts = std::any_of(usage.corpora().begin(), usage.corpora().end(),
                                 [](const v1::Corpus& corpus) { return corpus.parts_size() > 0; });
  std::vector<Column> columns = {
      {"CORPUS"}, {"DEVICE", Align::kRight}, {"HOST", Align::kRight}, {"DISK", Align::kRight}};
  if (parts) columns.push_back({"ALL LAYERS KEPT", Align::kRight});
  TablePrinter corpora(columns);
  for (const v1::Corpus& corpus : usage.corpora()) {
    std::vector<std::string> cells = {corpus.name(), FormatBytes(corpus.device_bytes()),
                                      FormatBytes(corpus.host_bytes()),
                                      FormatBytes(corpus.disk_bytes())};
    if (parts) {
      cells.push_back(corpus.parts_size() > 0 ? FormatBytes(corpus.keep_all_bytes()) : "-");
    }
    corpora.AddRow(std::move(cells));
  }
  corpora.Print(context.console.out, style);
}

void PrintDoctor(const CommandContext& context, const v1::DoctorReply& reply) {
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, DoctorToJson(reply));
    return;
  }
  if (mode == OutputMode::kName) {
    for (const v1::Check& check : reply.checks()) context.console.out << check.name() << '\n';
    return;
  }
  TablePrinter table({{"LEVEL", Align::kLeft, true}, {"CHECK"}, {"FINDING"}});
  for (const v1::Check& check : reply.checks()) {
    if (context.arguments.quiet && check.level() == "ok") continue;
    table.AddRow({check.level(), check.name(), check.text()});
  }
  table.Print(context.console.out, StyleOf(context));
}

void AddCheck(v1::DoctorReply& reply, const std::string& name, const std::string& level,
              const std::string& text) {
  v1::Check* check = reply.add_checks();
  check->set_name(name);
  check->set_level(level);
  check->set_text(text);
}

// The checks of this side come first: without a connection there are no others.
ClientResult<Done> RunChecks(const CommandContext& context, v1::DoctorReply& all) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) {
    AddCheck(all, "connection", "error", client.error().message);
    return client.error();
  }
  AddCheck(all, "connection", "ok", "corpusd answers on " + SocketPath(context));
  auto version = (*client)->Version();
  if (!version.ok()) {
    AddCheck(all, "version", "error", version.error().message);
    return version.error();
  }
  const bool same = version->version() == CORPUSD_VERSION;
  AddCheck(all, "version", same ? "ok" : "warn",
           "corpusctl " + std::string(CORPUSD_VERSION) + ", corpusd " + version->version());
  auto reply = (*client)->Doctor();
  if (!reply.ok()) {
    AddCheck(all, "daemon", "error", reply.error().message);
    return reply.error();
  }
  all.mutable_checks()->MergeFrom(reply->checks());
  return Done{};
}

}  // namespace

int RunDiskUsage(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto usage = (*client)->DiskUsage();
  if (!usage.ok()) return Fail(context, usage.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, DiskUsageToJson(*usage));
  } else if (mode == OutputMode::kName) {
    for (const v1::Corpus& corpus : usage->corpora()) context.console.out << corpus.name() << '\n';
  } else {
    PrintDiskUsageTables(context, *usage);
  }
  return kExitOk;
}

int RunVerify(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  const Arguments& arguments = context.arguments;
  ProgressLine line(context.console.err, ProgressModeOf(context), context.console.width);
  auto reply =
      (*client)->Verify(arguments.name, arguments.repair, [&](uint64_t done, uint64_t total) {
        ProgressSample sample;
        sample.label = arguments.name;
        sample.state = "verifying";
        sample.unit = "blocks";
        sample.done = done;
        sample.total = total;
        line.Update(sample, context.console.now_ms());
        return true;
      });
  line.Clear();
  if (!reply.ok()) return Fail(context, reply.error());

  const uint64_t bad = reply->damaged() + reply->missing();
  const std::string found =
      FormatCount(reply->damaged()) + " damaged, " + FormatCount(reply->missing()) + " missing, " +
      FormatCount(reply->repaired()) + " repaired of " + FormatCount(reply->blocks()) + " blocks";
  const OutputMode mode = arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, VerifyToJson(arguments.name, *reply));
  } else if (mode == OutputMode::kName) {
    context.console.out << arguments.name << '\n';
  } else if (bad == 0) {
    Say(context, Quoted(arguments.name) + " is whole: " + FormatCount(reply->blocks()) +
                     " blocks, " + FormatBytes(reply->bytes()));
  } else {
    Say(context, Quoted(arguments.name) + ": " + found);
  }
  if (bad <= reply->repaired()) return kExitOk;
  const std::string hint =
      arguments.repair ? ""
                       : "; 'corpusctl verify " + arguments.name + " --repair' recomputes them";
  return Fail(context, {7, "corruption",
                        "corpus " + Quoted(arguments.name) + " is damaged: " + found + hint});
}

int RunDoctor(const CommandContext& context) {
  v1::DoctorReply all;
  auto ran = RunChecks(context, all);
  PrintDoctor(context, all);
  if (!ran.ok()) return Fail(context, ran.error());
  for (const v1::Check& check : all.checks()) {
    if (check.level() == "error") {
      return Fail(context,
                  {0, "unhealthy", "check " + Quoted(check.name()) + " failed: " + check.text()});
    }
  }
  return kExitOk;
}

int RunVersion(const CommandContext& context) {
  const std::string client_version = CORPUSD_VERSION;
  std::optional<v1::VersionReply> server;
  std::optional<ClientError> error;
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) {
    error = client.error();
  } else {
    auto reply = (*client)->Version();
    if (reply.ok()) {
      server = *std::move(reply);
    } else {
      error = reply.error();
    }
  }
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode,
                    VersionToJson(client_version, server ? &*server : nullptr));
  } else {
    Fields fields = {{"corpusctl", client_version}};
    if (server) {
      fields.emplace_back("corpusd", server->version());
      fields.emplace_back("backend", server->backend());
      fields.emplace_back("model", server->model_name());
      fields.emplace_back("model digest", server->model_digest());
      fields.emplace_back("protocol", std::to_string(server->protocol()));
      fields.emplace_back("pid", std::to_string(server->pid()));
    }
    PrintFields(context.console.out, fields, StyleOf(context));
  }
  return error ? Fail(context, *error) : static_cast<int>(kExitOk);
}

int RunCompletion(const CommandContext& context) {
  const CommandWords words = DescribeCommands();
  const std::string& shell = context.arguments.name;
  if (shell == "bash") {
    context.console.out << BashCompletion(words);
  } else if (shell == "zsh") {
    context.console.out << ZshCompletion(words);
  } else {
    context.console.out << FishCompletion(words);
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
