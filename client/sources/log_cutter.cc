#include "client/sources/log_cutter.h"

#include <utility>

#include "client/sources/line_label.h"

namespace corpusd::sources {

LogCutter::LogCutter(std::string path, DocumentSink& sink)
    : path_(std::move(path)),
      sink_(sink),
      cutter_(kLineBytesMax, [this](const LinePart& part) { return TakePart(part); }) {}

bool LogCutter::TakePart(const LinePart& part) {
  const bool full = !document_.empty() && document_.size() + part.text.size() + 1 > kDocumentBytes;
  if (full && !SendDocument()) return false;
  if (document_.empty()) first_line_ = part.number;
  last_line_ = part.number;
  document_ += part.text;
  document_ += '\n';
  return true;
}

bool LogCutter::SendDocument() {
  if (document_.empty()) return true;
  const std::string document = std::exchange(document_, {});
  return sink_.Begin(LinesLabel(path_, first_line_, last_line_)) && sink_.Write(document) &&
         sink_.End();
}

}  // namespace corpusd::sources
