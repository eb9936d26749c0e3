// explain-miss: why blocks of a corpus or of a text are not in the store.
#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"
#include "client/sources/file_reader.h"

namespace corpusd::ctl {
namespace {

// With its envelope below the daemon's usual limit of a frame.
constexpr uint64_t kTextBytesMax = uint64_t{15} << 20;

Json TextOrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json ToJson(const v1::ExplainMissReply& reply) {
  Json runs = Json::array();
  for (const v1::MissRun& run : reply.runs()) {
    runs.push_back(
        {{"first_block", run.first_block()},
         {"blocks", run.blocks()},
         {"reason", run.reason()},
         {"when", run.when_ms() == 0 ? Json(nullptr) : Json(FormatTimestamp(run.when_ms()))},
         {"detail", TextOrNull(run.detail())}});
  }
  Json differences = Json::array();
  for (const v1::FieldDifference& difference : reply.differences()) {
    differences.push_back({{"field", difference.field()},
                           {"stored", difference.stored()},
                           {"asked", difference.asked()}});
  }
  return {{"name", TextOrNull(reply.name())},
          {"tokens", reply.tokens()},
          {"blocks", reply.blocks()},
          {"present", reply.present()},
          {"reason", reply.reason()},
          {"runs", std::move(runs)},
          {"other_corpus", TextOrNull(reply.other_corpus())},
          {"differences", std::move(differences)},
          {"not_served", TextOrNull(reply.not_served())}};
}

std::string Summary(const v1::ExplainMissReply& reply) {
  const std::string count =
      FormatCount(reply.present()) + " of " + FormatCount(reply.blocks()) + " blocks are here";
  for (const v1::MissRun& run : reply.runs()) {
    if (run.reason() == "none") continue;
    std::string text = count + "; block " + FormatCount(run.first_block()) + " is the first that " +
                       "misses: " + run.reason();
    if (!reply.other_corpus().empty()) {
      text += ", the text is in corpus " + Quoted(reply.other_corpus()) + " under another identity";
    }
    return text;
  }
  return count + ": nothing misses";
}

void PrintTables(const CommandContext& context, const v1::ExplainMissReply& reply) {
  Say(context, Summary(reply));
  if (!reply.not_served().empty()) {
    Say(context, "the corpus is not served by this daemon: " + reply.not_served());
  }
  TablePrinter runs(
      {{"FIRST", Align::kRight}, {"BLOCKS", Align::kRight}, {"REASON"}, {"WHEN"}, {"DETAIL"}});
  const int64_t now_ms = context.console.now_ms();
  for (const v1::MissRun& run : reply.runs()) {
    runs.AddRow({FormatCount(run.first_block()), FormatCount(run.blocks()),
                 run.reason() == "none" ? "here" : run.reason(),
                 run.when_ms() == 0 ? "-" : FormatAge(run.when_ms(), now_ms), run.detail()});
  }
  runs.Print(context.console.out, StyleOf(context));
  if (reply.differences().empty()) return;
  context.console.out << '\n';
  TablePrinter fields({{"FIELD"}, {"STORED"}, {"ASKED"}});
  for (const v1::FieldDifference& difference : reply.differences()) {
    fields.AddRow({difference.field(), difference.stored(), difference.asked()});
  }
  fields.Print(context.console.out, StyleOf(context));
}

}  // namespace

int RunExplainMiss(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  v1::ExplainMissRequest request;
  request.set_name(arguments.name);
  request.set_kv_format(arguments.kv_format);
  if (!arguments.file.empty()) {
    auto text = sources::ReadSmallFile(arguments.file, kTextBytesMax);
    if (!text.ok()) return Fail(context, text.error());
    request.set_text(*std::move(text));
  }
  if (!arguments.preamble_path.empty()) {
    auto preamble = sources::ReadSmallFile(arguments.preamble_path, uint64_t{1} << 20);
    if (!preamble.ok()) return Fail(context, preamble.error());
    request.set_preamble(*std::move(preamble));
  }
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto reply = (*client)->ExplainMiss(request);
  if (!reply.ok()) return Fail(context, reply.error());
  if (IsStructured(arguments.output)) {
    PrintStructured(context.console.out, arguments.output, ToJson(*reply));
  } else if (arguments.output == OutputMode::kName) {
    context.console.out << reply->reason() << '\n';
  } else {
    PrintTables(context, *reply);
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
