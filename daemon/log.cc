#include "daemon/log.h"

#include <fcntl.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

namespace corpusd {
namespace {

struct LogOutput {
  std::shared_ptr<spdlog::logger> logger;
  LogFormat format = LogFormat::kText;
};

LogOutput MakeOutput(spdlog::level::level_enum level, LogFormat format) {
  auto logger = std::make_shared<spdlog::logger>("corpusd",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  // JSON lines: the message already ends the object that the pattern begins.
  logger->set_pattern(format == LogFormat::kJson
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v)"
                          : "%Y-%m-%dT%H:%M:%S.%e%z %-5!l %v");
  return {std::move(logger), format};
}

// The log sink is the one global of the daemon.
LogOutput& Output() {
  static LogOutput output = MakeOutput(spdlog::level::info, LogFormat::kText);
  return output;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

nlohmann::json ToJson(const LogField& field) {
  return std::visit([](const auto& value) { return nlohmann::json(value); }, field.value);
}

// Broken UTF-8 (a path, a name) is replaced, not thrown at.
std::string Dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string FieldText(const LogField& field) {
  if (const auto* number = std::get_if<double>(&field.value)) {
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%.6g", *number);
    return text.data();
  }
  const auto* text = std::get_if<std::string>(&field.value);
  const bool plain = text != nullptr && !text->empty() &&
                     text->find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         "._-/:+@,") == std::string::npos;
  return plain ? *text : Dump(ToJson(field));
}

}  // namespace

std::string FormatLogLine(LogFormat format, std::string_view event,
                          std::initializer_list<LogField> fields) {
  std::string line;
  if (format == LogFormat::kText) {
    line = event;
    for (const LogField& field : fields) {
      line += " " + std::string(field.name) + "=" + FieldText(field);
    }
    return line;
  }
  line = "\"event\":" + Dump(std::string(event));
  for (const LogField& field : fields) {
    line += "," + Dump(std::string(field.name)) + ":" + Dump(ToJson(field));
  }
  return line + "}";
}

void OpenLog(std::string_view level, LogFormat format) {
  const std::string name = level == "warn" ? "warning" : std::string(level);
  Output() = MakeOutput(spdlog::level::from_str(name), format);
}

Status SendLogTo(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
  if (file < 0) {
    return IoError("cannot open the log '" + path + "': " + std::strerror(errno));
  }
  const int moved = dup2(file, STDERR_FILENO);  // at once: no line is lost between two files
  const int error = errno;
  close(file);
  if (moved < 0) return IoError("cannot log to '" + path + "': " + std::strerror(error));
  return OkStatus();
}

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const LogOutput& output = Output();
  const spdlog::level::level_enum wanted = ToSpdlog(level);
  if (!output.logger->should_log(wanted)) return;
  output.logger->log(wanted, spdlog::string_view_t(FormatLogLine(output.format, event, fields)));
}

}  // namespace corpusd
