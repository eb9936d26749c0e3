// evict: of one corpus, of all, or of as much as gives a size back; --dry-run says what would go,
// in which order and why.
#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

std::string BlocksText(uint64_t blocks, uint64_t bytes) {
  return FormatCount(blocks) + (blocks == 1 ? " block, " : " blocks, ") + FormatBytes(bytes);
}

Json EvictToJson(const Arguments& arguments, const v1::EvictReply& reply) {
  Json steps = Json::array();
  for (const v1::EvictStep& step : reply.steps()) {
    steps.push_back({{"name", step.corpus()},
                     {"keep_blocks", step.keep_blocks()},
                     {"blocks", step.blocks()},
                     {"bytes", step.bytes()},
                     {"why", step.why()}});
  }
  return {{"name", arguments.name.empty() ? Json(nullptr) : Json(arguments.name)},
          {"from", arguments.tier.empty() ? Json(nullptr) : Json(arguments.tier)},
          {"dry_run", arguments.dry_run},
          {"blocks", reply.blocks()},
          {"bytes", reply.bytes()},
          {"shared_blocks", reply.shared_blocks()},
          {"steps", std::move(steps)},
          {"stays",
           {{"pinned_bytes", reply.pinned_bytes()},
            {"busy_bytes", reply.busy_bytes()},
            {"leased_bytes", reply.leased_bytes()}}}};
}

// Why no more goes; "" if nothing is held.
std::string StaysText(const v1::EvictReply& reply) {
  std::string text;
  const auto add = [&](uint64_t bytes, const char* what) {
    if (bytes > 0) text += (text.empty() ? "; stays: " : ", ") + FormatBytes(bytes) + what;
  };
  add(reply.pinned_bytes(), " pinned");
  add(reply.busy_bytes(), " being prefilled");
  add(reply.leased_bytes(), " being read");
  return text;
}

void PrintSteps(const CommandContext& context, const v1::EvictReply& reply) {
  TablePrinter table({{"CORPUS"},
                      {"BLOCKS", Align::kRight},
                      {"KEEPS", Align::kRight},
                      {"BYTES", Align::kRight},
                      {"WHY"}});
  for (const v1::EvictStep& step : reply.steps()) {
    table.AddRow({step.corpus(), FormatCount(step.blocks()), FormatCount(step.keep_blocks()),
                  FormatBytes(step.bytes()), step.why()});
  }
  if (!reply.steps().empty()) table.Print(context.console.out, StyleOf(context));
}

void PrintEvicted(const CommandContext& context, const v1::EvictReply& reply,
                  const std::string& what, const std::string& where) {
  const Arguments& arguments = context.arguments;
  if (IsStructured(arguments.output)) {
    return PrintStructured(context.console.out, arguments.output, EvictToJson(arguments, reply));
  }
  if (arguments.output == OutputMode::kName) {
    if (!arguments.name.empty()) context.console.out << arguments.name << '\n';
    for (const v1::EvictStep& step : reply.steps()) context.console.out << step.corpus() << '\n';
    return;
  }
  if (!arguments.quiet) PrintSteps(context, reply);
  std::string text = (arguments.dry_run ? "would evict " : "evicted ") + what + where + ": " +
                     BlocksText(reply.blocks(), reply.bytes());
  if (reply.shared_blocks() > 0) {
    text += "; " + FormatCount(reply.shared_blocks()) + " shared with other corpora stay";
  }
  Say(context, text + StaysText(reply));
}

}  // namespace

int RunEvict(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  const bool much = arguments.all || arguments.to_free_bytes > 0;
  auto client = ConnectToDaemon(context, much ? CallLength::kLong : CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  v1::EvictRequest request;
  request.set_name(arguments.name);
  request.set_from(arguments.tier);
  request.set_dry_run(arguments.dry_run);
  request.set_all(arguments.all);
  request.set_to_free_bytes(arguments.to_free_bytes);
  auto reply = (*client)->Evict(request);
  if (!reply.ok()) return Fail(context, reply.error());
  const std::string where = arguments.tier.empty() ? "" : " from " + arguments.tier;
  const std::string what = !arguments.name.empty() ? Quoted(arguments.name)
                           : arguments.all         ? "all corpora"
                                                   : FormatBytes(arguments.to_free_bytes);
  if (reply->blocks() == 0 && reply->shared_blocks() == 0) {
    return Fail(context,
                NothingToDo("no block of " + (arguments.name.empty() ? "any corpus" : what) +
                            " can be evicted" + where + StaysText(*reply)));
  }
  PrintEvicted(context, *reply, what, where);
  if (reply->bytes() < arguments.to_free_bytes) {
    return Fail(context, {0, "resource_exhausted",
                          "no more than " + FormatBytes(reply->bytes()) + " of " +
                              FormatBytes(arguments.to_free_bytes) + " can be freed" + where +
                              StaysText(*reply)});
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
