#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/cost_text.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

std::string StateCell(const v1::Corpus& corpus) {
  if (corpus.state() != "prefilling" || corpus.tokens() == 0) return corpus.state();
  const double share =
      100.0 * static_cast<double>(corpus.durable_tokens()) / static_cast<double>(corpus.tokens());
  return corpus.state() + " " + std::to_string(static_cast<int>(share)) + "%";
}

std::string PinCell(const v1::Corpus& corpus, int64_t now_ms) {
  if (!corpus.pinned()) return "-";
  const std::string tier = corpus.pin_tier().empty() ? "yes" : corpus.pin_tier();
  if (corpus.pin_expires_at_ms() == 0) return tier;
  return tier + " (" + FormatAge(corpus.pin_expires_at_ms(), now_ms) + ")";
}

std::string TextOrDash(const std::string& text) { return text.empty() ? "-" : text; }

void PrintTable(const CommandContext& context, const v1::ListReply& reply) {
  const bool wide = context.arguments.output == OutputMode::kWide;
  const int64_t now_ms = context.console.now_ms();
  std::vector<Column> columns = {{"NAME"},
                                 {"STATE", Align::kLeft, true},
                                 {"TOKENS", Align::kRight},
                                 {"STORED", Align::kRight},
                                 {"HOST", Align::kRight},
                                 {"DISK", Align::kRight},
                                 {"PIN"},
                                 {"LAST USED"},
                                 {"EXPIRES"}};
  if (wide) {
    for (const char* title : {"OWNER", "REASON", "PRIORITY", "ID", "MODE", "FORMAT", "BLOCKS",
                              "DEVICE", "CREATED", "MODEL", "ROOT"}) {
      columns.push_back({title});
    }
  }
  TablePrinter table(columns);
  for (const v1::Corpus& corpus : reply.corpora()) {
    std::vector<std::string> cells = {corpus.name(),
                                      StateCell(corpus),
                                      FormatCount(corpus.tokens()),
                                      FormatBytes(corpus.stored_bytes()),
                                      FormatBytes(corpus.host_bytes()),
                                      FormatBytes(corpus.disk_bytes()),
                                      PinCell(corpus, now_ms),
                                      FormatAge(corpus.last_used_at_ms(), now_ms),
                                      FormatAge(corpus.expires_at_ms(), now_ms)};
    if (wide) {
      for (const std::string& cell :
           {TextOrDash(corpus.pin_owner()), TextOrDash(corpus.pin_reason()),
            TextOrDash(corpus.priority()), std::to_string(corpus.id()), corpus.mode(),
            corpus.kv_format(), FormatCount(corpus.blocks()), FormatBytes(corpus.device_bytes()),
            FormatAge(corpus.created_at_ms(), now_ms), corpus.model_name(), corpus.root()}) {
        cells.push_back(cell);
      }
    }
    table.AddRow(std::move(cells));
  }
  table.Print(context.console.out, StyleOf(context));
}

std::string TimeField(int64_t time_ms, int64_t now_ms) {
  if (time_ms == 0) return "-";
  return FormatTimestamp(time_ms) + " (" + FormatAge(time_ms, now_ms) + ")";
}

// "4.4 MiB", and of ranks each one's: "4.4 MiB: 2.2 MiB, 2.2 MiB on ranks 0 to 1".
std::string DiskText(const v1::Corpus& corpus) {
  std::string text = FormatBytes(corpus.disk_bytes());
  for (int rank = 0; rank < corpus.rank_disk_bytes_size(); ++rank) {
    text += (rank == 0 ? ": " : ", ") + FormatBytes(corpus.rank_disk_bytes(rank));
  }
  if (corpus.rank_disk_bytes_size() == 0) return text;
  return text + " on ranks 0 to " + std::to_string(corpus.rank_disk_bytes_size() - 1);
}

Fields FieldsOf(const v1::Corpus& corpus, int64_t now_ms) {
  Fields fields = {{"name", corpus.name()},
                   {"id", std::to_string(corpus.id())},
                   {"state", StateCell(corpus)},
                   {"mode", corpus.mode()},
                   {"tokens", FormatCount(corpus.tokens())},
                   {"segments", FormatCount(corpus.segments())},
                   {"blocks", FormatCount(corpus.blocks())},
                   {"format", corpus.kv_format()},
                   {"model", corpus.model_name()},
                   {"root", corpus.root()},
                   {"stored", FormatBytes(corpus.stored_bytes()) + " (" +
                                  FormatBytes(corpus.bf16_bytes()) + " as bf16)"},
                   {"on device", FormatBytes(corpus.device_bytes())},
                   {"on host", FormatBytes(corpus.host_bytes())},
                   {"on disk", DiskText(corpus)},
                   {"pinned", PinCell(corpus, now_ms)},
                   {"created", TimeField(corpus.created_at_ms(), now_ms)},
                   {"last used", TimeField(corpus.last_used_at_ms(), now_ms)},
                   {"expires", TimeField(corpus.expires_at_ms(), now_ms)},
                   {"priority", TextOrDash(corpus.priority())},
                   {"prefill", FormatDuration(corpus.prefill_seconds()) + " at " +
                                   FormatRate(corpus.prefill_tokens_per_s()) + " tok/s, resumed " +
                                   std::to_string(corpus.prefill_resumed_times()) + " times"}};
  for (const v1::CorpusPart& part : corpus.parts()) {
    fields.emplace_back("layers " + part.kind(), FormatBytes(part.bytes()) + ", of " +
                                                     FormatCount(part.blocks()) + " of " +
                                                     FormatCount(corpus.blocks()) + " blocks");
  }
  if (corpus.parts_size() > 0) {
    fields.emplace_back("all layers kept", FormatBytes(corpus.keep_all_bytes()));
  }
  if (corpus.pinned()) {
    fields.emplace_back("pin owner", TextOrDash(corpus.pin_owner()));
    fields.emplace_back("pin reason", TextOrDash(corpus.pin_reason()));
    fields.emplace_back("pin made", TimeField(corpus.pinned_at_ms(), now_ms));
    fields.emplace_back("pin charge", FormatBytes(corpus.pin_bytes()));
  }
  if (corpus.has_quality()) fields.emplace_back("quality", QualityText(corpus.quality()));
  if (corpus.has_cost()) AddCostFields(corpus.cost(), &fields);
  if (corpus.skipped_files() > 0) {
    fields.emplace_back("skipped files", FormatCount(corpus.skipped_files()));
  }
  for (const std::string& root : corpus.roots()) fields.emplace_back("made of", root);
  if (!corpus.replaces().empty()) fields.emplace_back("replaces", corpus.replaces());
  if (corpus.job_id() != 0) fields.emplace_back("job", std::to_string(corpus.job_id()));
  if (!corpus.error().empty()) fields.emplace_back("error", corpus.error());
  return fields;
}

// RETURNS whether the user agrees; without a terminal only --yes does.
ClientResult<Done> ConfirmRemoval(const CommandContext& context, const v1::Corpus& corpus) {
  if (context.arguments.assume_yes) return Done{};
  if (!context.console.in_is_terminal) {
    return UsageError("rm asks before it removes " + Quoted(corpus.name()) +
                      ", and stdin is no terminal: say --yes");
  }
  context.console.err << "Remove corpus " << Quoted(corpus.name()) << " ("
                      << FormatCount(corpus.tokens()) << " tokens, "
                      << FormatBytes(corpus.stored_bytes()) << ")? [y/N] " << std::flush;
  std::string answer;
  std::getline(context.console.in, answer);
  if (context.console.interrupted != nullptr && context.console.interrupted->load()) {
    return ClientError{kClientInterrupted, "interrupted", "interrupted; nothing was removed"};
  }
  if (answer == "y" || answer == "Y" || answer == "yes") return Done{};
  return ClientError{0, "declined", "nothing was removed"};
}

}  // namespace

int RunList(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto reply = (*client)->List();
  if (!reply.ok()) return Fail(context, reply.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    Json corpora = Json::array();
    for (const v1::Corpus& corpus : reply->corpora()) corpora.push_back(CorpusToJson(corpus));
    PrintStructured(context.console.out, mode, corpora);
  } else if (mode == OutputMode::kName || context.arguments.quiet) {
    for (const v1::Corpus& corpus : reply->corpora()) {
      context.console.out << corpus.name() << '\n';
    }
  } else {
    PrintTable(context, *reply);
  }
  return kExitOk;
}

int RunShow(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto corpus = (*client)->Show(context.arguments.name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode) || mode == OutputMode::kName) {
    PrintChanged(context, *corpus, "");
    return kExitOk;
  }
  const TableStyle style = StyleOf(context);
  PrintFields(context.console.out, FieldsOf(*corpus, context.console.now_ms()), style);
  if (corpus->sources().empty()) return kExitOk;
  context.console.out << '\n';
  TablePrinter sources({{"SOURCE"}, {"TOKENS", Align::kRight}, {"SIZE", Align::kRight}});
  for (const v1::Source& source : corpus->sources()) {
    sources.AddRow({source.path(), FormatCount(source.tokens()), FormatBytes(source.bytes())});
  }
  sources.Print(context.console.out, style);
  return kExitOk;
}

int RunRemove(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  const std::string& name = context.arguments.name;
  auto corpus = (*client)->Show(name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  auto confirmed = ConfirmRemoval(context, *corpus);
  if (!confirmed.ok()) return Fail(context, confirmed.error());
  auto removed = (*client)->Remove(name);
  if (!removed.ok()) return Fail(context, removed.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, {{"name", name}, {"removed", true}});
  } else if (mode == OutputMode::kName) {
    context.console.out << name << '\n';
  } else {
    Say(context, "removed " + Quoted(name));
  }
  return kExitOk;
}

int RunRename(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  const Arguments& arguments = context.arguments;
  auto renamed = (*client)->Rename(arguments.name, arguments.new_name);
  if (!renamed.ok()) return Fail(context, renamed.error());
  auto corpus = (*client)->Show(arguments.new_name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  PrintChanged(context, *corpus,
               "renamed " + Quoted(arguments.name) + " to " + Quoted(arguments.new_name));
  return kExitOk;
}

}  // namespace corpusd::ctl
