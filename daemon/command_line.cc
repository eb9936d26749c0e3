#include <CLI/CLI.hpp>

#include "daemon/options.h"
#include "daemon/version.h"

namespace corpusd {
namespace {

std::string UnknownFlag(const std::string& argument) {
  if (argument.rfind("--", 0) != 0) return "unexpected argument '" + argument + "'";
  std::vector<std::string> known = {"--config", "--check-config", "--version", "--help"};
  for (const OptionSpec& spec : OptionTable()) known.push_back("--" + std::string(spec.flag));
  const std::string name = argument.substr(0, argument.find('='));
  return "unknown flag " + name + "; did you mean " + NearestName(name, known) + "?";
}

}  // namespace

Result<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  CLI::App app("corpusd: prefills a corpus once, answers questions about it at once", "corpusd");
  CommandLine line;
  app.set_help_flag();
  bool help = false, version = false, check = false;
  app.add_flag("--help,-h", help, "print this and exit");
  app.add_flag("--version", version, "print the version and exit");
  app.add_flag(
      "--check-config", check,
      "print every effective value and where it is from, say all that is wrong in files and "
      "values, and exit with 2 if anything is; the same: corpusd config check");
  app.add_option("--config", line.config_path, "read options from this TOML file")
      ->type_name("FILE.toml");
  std::map<std::string, std::string> texts;
  for (const OptionSpec& spec : OptionTable()) {
    std::string help_text = std::string(spec.help) + " [" + spec.Variable() + "]";
    if (!spec.default_value.empty()) {
      help_text += " (default " + std::string(spec.default_value) + ")";
    }
    app.add_option("--" + std::string(spec.flag), texts[spec.Key()], help_text)
        ->type_name(std::string(spec.value_name));
  }
  app.allow_extras();
  std::vector<std::string> flags(arguments.rbegin(), arguments.rend());
  const bool asked = arguments.size() >= 2 && arguments[0] == "config" && arguments[1] == "check";
  if (asked) flags.resize(flags.size() - 2);
  // CLI11 reports by exceptions; they end here.
  try {
    app.parse(flags);
  } catch (const CLI::Error& error) {
    return InvalidArgumentError(error.what());
  }
  const std::vector<std::string> extras = app.remaining();
  if (!extras.empty()) return InvalidArgumentError(UnknownFlag(extras.front()));
  for (const OptionSpec& spec : OptionTable()) {
    if (app.count("--" + std::string(spec.flag)) > 0) {
      line.flags[spec.Key()] = texts[spec.Key()];
    }
  }
  if (check || asked) line.action = CommandLine::Action::kCheckConfig;
  if (help || version) {
    line.action = CommandLine::Action::kPrint;
    line.output = help ? app.help() : "corpusd " + std::string(kVersion) + "\n";
  }
  return line;
}

}  // namespace corpusd
