// daemon/log.h -- structured log lines on stderr: an event's name and named values, as text for
// people or as JSON lines. The only file that includes spdlog is log.cc. Any thread. Never give it
// the text of a question, an answer or a corpus.
//   Log(LogLevel::kInfo, "query", {{"corpus", name}, {"total_ms", 12.5}});
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

#include "daemon/options.h"
#include "store/base/status.h"

namespace corpusd {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

struct LogField {
  LogField(std::string_view field, std::string_view text) : name(field), value(std::string(text)) {}
  LogField(std::string_view field, const std::string& text) : name(field), value(text) {}
  LogField(std::string_view field, const char* text) : name(field), value(std::string(text)) {}
  LogField(std::string_view field, bool flag) : name(field), value(flag) {}
  LogField(std::string_view field, double number) : name(field), value(number) {}
  template <std::integral T>
  LogField(std::string_view field, T number) : name(field), value(static_cast<int64_t>(number)) {}

  std::string_view name;
  std::variant<std::string, int64_t, double, bool> value;
};

// Before any thread is started; without it, text from level info on.
void OpenLog(std::string_view level, LogFormat format);
// Puts stderr, and with it every log line, at the end of this file, made with mode 0640 if it is
// not there. Again for the same name: goes on in a new file after the old one was moved away. Any
// thread.
Status SendLogTo(const std::string& path);
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

// The line without time and level, as Log writes it.
std::string FormatLogLine(LogFormat format, std::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace corpusd
