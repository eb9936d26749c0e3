#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

uint64_t TtlMs(const Arguments& arguments) {
  return arguments.ttl ? static_cast<uint64_t>(arguments.ttl->count()) : 0;
}

std::string Until(const CommandContext& context, int64_t time_ms) {
  if (time_ms == 0) return "";
  return " until " + FormatTimestamp(time_ms) + " (" +
         FormatAge(time_ms, context.console.now_ms()) + ")";
}

std::string BlocksText(uint64_t blocks, uint64_t bytes) {
  return FormatCount(blocks) + (blocks == 1 ? " block, " : " blocks, ") + FormatBytes(bytes);
}

// The object that warm prints, or the corpus's name, or the sentence.
void PrintMoved(const CommandContext& context, const Json& object, const std::string& sentence) {
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, object);
  } else if (mode == OutputMode::kName) {
    context.console.out << context.arguments.name << '\n';
  } else {
    Say(context, sentence);
  }
}

}  // namespace

int RunPin(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  const Arguments& arguments = context.arguments;
  v1::PinRequest request;
  request.set_name(arguments.name);
  request.set_tier(arguments.tier);
  request.set_ttl_ms(TtlMs(arguments));
  request.set_reason(arguments.reason);
  request.set_keep(true);
  request.set_never_expires(arguments.ttl_never);
  auto corpus = (*client)->Pin(request);
  if (!corpus.ok()) return Fail(context, corpus.error());
  const std::string tier = corpus->pin_tier().empty() ? "" : " to " + corpus->pin_tier();
  PrintChanged(
      context, *corpus,
      "pinned " + Quoted(arguments.name) + tier + Until(context, corpus->pin_expires_at_ms()));
  return kExitOk;
}

int RunUnpin(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  const std::string& name = context.arguments.name;
  auto before = (*client)->Show(name);
  if (!before.ok()) return Fail(context, before.error());
  if (!before->pinned()) return Fail(context, NothingToDo(Quoted(name) + " is not pinned"));
  auto corpus = (*client)->Unpin(name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  PrintChanged(context, *corpus, "unpinned " + Quoted(name));
  return kExitOk;
}

int RunWarm(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  const Arguments& arguments = context.arguments;
  auto reply = (*client)->Warm(arguments.name, arguments.tier);
  if (!reply.ok()) return Fail(context, reply.error());
  const std::string where = arguments.tier.empty() ? "" : " to " + arguments.tier;
  const Json object = {{"name", arguments.name},
                       {"to", arguments.tier.empty() ? Json(nullptr) : Json(arguments.tier)},
                       {"blocks", reply->blocks()},
                       {"bytes", reply->bytes()},
                       {"disk_bytes", reply->disk_bytes()},
                       {"device_bytes", reply->device_bytes()},
                       {"seconds", reply->seconds()}};
  PrintMoved(context, object,
             "warmed " + Quoted(arguments.name) + where + ": " +
                 BlocksText(reply->blocks(), reply->bytes()) + ", " +
                 FormatBytes(reply->disk_bytes()) + " read from disk in " +
                 FormatDuration(reply->seconds()));
  return kExitOk;
}

int RunTouch(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  const Arguments& arguments = context.arguments;
  v1::TouchRequest request;
  request.set_name(arguments.name);
  request.set_ttl_ms(TtlMs(arguments));
  request.set_priority(arguments.priority);
  request.set_keep_expiry(!arguments.ttl && !arguments.ttl_never);
  auto corpus = (*client)->Touch(request);
  if (!corpus.ok()) return Fail(context, corpus.error());
  std::string text = corpus->expires_at_ms() == 0 ? Quoted(arguments.name) + " never expires"
                                                  : Quoted(arguments.name) + " is kept" +
                                                        Until(context, corpus->expires_at_ms());
  if (!arguments.priority.empty()) text += ", priority " + corpus->priority();
  PrintChanged(context, *corpus, text);
  return kExitOk;
}

}  // namespace corpusd::ctl
