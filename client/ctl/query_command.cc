#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"
#include "client/sources/file_reader.h"
#include "client/sources/line_label.h"
#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

// A question is typed or pasted; a corpus belongs in an ingest.
constexpr uint64_t kQuestionBytesMax = uint64_t{4} << 20;

ClientResult<std::string> ReadQuestion(const CommandContext& context) {
  if (context.arguments.question != "-") return context.arguments.question;
  std::string question;
  auto read = sources::ReadDescriptor(context.console.in_file, "the question from stdin",
                                      context.console.interrupted, [&](std::string_view piece) {
                                        question += piece;
                                        return question.size() <= kQuestionBytesMax;
                                      });
  if (!read.ok()) return read.error();
  if (question.size() > kQuestionBytesMax) {
    return UsageError("the question on stdin is longer than " + FormatBytes(kQuestionBytesMax));
  }
  while (question.ends_with('\n') || question.ends_with('\r')) question.pop_back();
  if (question.empty()) return UsageError("the question on stdin is empty");
  if (!IsUtf8(question)) return UsageError("the question on stdin is not UTF-8");
  return question;
}

// Writes the answer as it comes. Off a terminal the bytes are the model's own.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(Console& console) : console_(console) {}

  // RETURNS false once stdout takes no more.
  bool Print(std::string_view text) {
    if (text.empty()) return true;
    if (console_.out_is_terminal) {
      console_.out << EscapeForTerminal(text);
    } else {
      console_.out << text;
    }
    console_.out.flush();
    ends_line_ = text.ends_with('\n');
    return console_.out.good();
  }

  void Finish() {
    if (!ends_line_) console_.out << '\n';
    console_.out.flush();
  }

 private:
  Console& console_;
  bool ends_line_ = false;
};

std::string StatsLine(const v1::AskReply& reply) {
  const v1::Usage& usage = reply.usage();
  const v1::Timing& timing = reply.timing();
  std::string chosen;
  if (reply.has_selection()) {
    const v1::Selection& selection = reply.selection();
    chosen = "attended " + FormatCount(reply.attended_tokens()) + " tokens in " +
             FormatCount(selection.chosen_blocks()) + " of " +
             FormatCount(selection.candidate_blocks()) + " blocks, ";
  }
  return chosen + FormatCount(usage.prompt_tokens()) + " prompt tokens (" +
         FormatCount(usage.cached_tokens()) + " cached, " + FormatCount(usage.recomputed_tokens()) +
         " recomputed), first token " + FormatMilliseconds(timing.first_token_ms()) + ", " +
         FormatCount(usage.completion_tokens()) + " tokens at " +
         FormatRate(timing.decode_tokens_per_s()) + " tok/s";
}

// "path:12-40", lines of the file that the source is or is a part of; or the tokens where lines are
// not known.
std::string PlaceOf(const v1::Citation& citation) {
  if (citation.first_line() == 0) {
    return citation.source() + " tokens " + FormatCount(citation.first_token()) + " to " +
           FormatCount(citation.first_token() + citation.tokens());
  }
  const sources::FileLines lines =
      sources::LinesInFile(citation.source(), citation.first_line(), citation.last_line());
  std::string place = std::string(lines.path) + ":" + std::to_string(lines.first);
  if (lines.last > lines.first) place += "-" + std::to_string(lines.last);
  return place;
}

void PrintCitations(std::ostream& out, const v1::AskReply& reply) {
  if (reply.citations().empty()) return;
  out << '\n';
  int number = 0;
  for (const v1::Citation& citation : reply.citations()) {
    char weight[32];
    std::snprintf(weight, sizeof weight, "%.0f %%", 100 * citation.weight());
    out << '[' << ++number << "] " << EscapeForCell(PlaceOf(citation)) << ", " << weight << '\n';
  }
}

v1::AskRequest MakeRequest(const Arguments& arguments, std::string question) {
  v1::AskRequest request;
  request.set_name(arguments.name);
  request.set_question(std::move(question));
  request.set_max_tokens(arguments.max_tokens);
  request.set_temperature(arguments.temperature);
  request.set_seed(arguments.seed);
  request.set_top_p(arguments.top_p);
  request.set_top_k(arguments.top_k);
  request.set_min_p(arguments.min_p);
  request.set_repetition_penalty(arguments.repetition_penalty);
  request.set_repetition_window(arguments.repetition_window);
  request.set_presence_penalty(arguments.presence_penalty);
  request.set_frequency_penalty(arguments.frequency_penalty);
  request.mutable_stop()->Assign(arguments.stops.begin(), arguments.stops.end());
  request.set_n(arguments.answers);
  request.set_logprobs(arguments.top_logprobs.has_value());
  request.set_top_logprobs(arguments.top_logprobs.value_or(0));
  request.set_cite(arguments.cite);
  request.set_no_cache(arguments.no_cache);
  request.set_budget_tokens(arguments.budget_tokens);
  request.set_retrieval(arguments.retrieval);
  return request;
}

// Several answers, one below the other.
void PrintAnswers(AnswerPrinter& printer, const v1::AskReply& reply) {
  for (const v1::Answer& answer : reply.answers()) {
    if (answer.index() > 0) printer.Print("\n");
    printer.Print("--- answer " + std::to_string(answer.index() + 1) + " of " +
                  std::to_string(reply.answers_size()) + "\n");
    printer.Print(answer.text());
    printer.Finish();
  }
}

// The answer as people read it, with the statistics on stderr.
void PrintPlainEnd(const CommandContext& context, const v1::AskReply& reply) {
  PrintCitations(context.console.out, reply);
  context.console.out.flush();
  if (context.arguments.cite && !reply.has_selection()) {
    Note(context, "nothing is cited: an exact corpus is attended to as a whole");
  }
  if (context.console.err_is_terminal && !context.arguments.quiet) {
    context.console.err << StatsLine(reply) << '\n';
  }
}

}  // namespace

int RunAsk(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  auto question = ReadQuestion(context);
  if (!question.ok()) return Fail(context, question.error());
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());

  const bool structured = IsStructured(arguments.output);
  const bool streams = !structured && !arguments.no_stream && arguments.answers == 1;
  AnswerPrinter printer(context.console);
  bool started = false;
  std::function<bool(std::string_view)> on_text;
  if (streams) {
    on_text = [&](std::string_view text) {
      started = true;
      return printer.Print(text);
    };
  }
  auto reply = (*client)->Ask(MakeRequest(arguments, *std::move(question)), on_text);
  if (!reply.ok()) {
    if (started) printer.Finish();
    return Fail(context, reply.error());
  }
  if (structured) {
    PrintStructured(context.console.out, arguments.output, AskToJson(*reply));
  } else {
    if (reply->answers_size() > 1) {
      PrintAnswers(printer, *reply);
    } else {
      if (!streams) printer.Print(reply->answer());
      printer.Finish();
    }
    PrintPlainEnd(context, *reply);
  }
  if (reply->finish_reason() != "cancelled") return kExitOk;
  if (!context.console.out.good()) return kExitOther;  // the reader of stdout went away
  return Fail(context, {10, "cancelled", "the answer was cut off: corpusd cancelled the question"});
}

}  // namespace corpusd::ctl
