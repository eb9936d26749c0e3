// client/sources/json_lines.h -- JsonLines: each line of a JSON Lines file as a document,
// "data.jsonl#L12". Its text is one field of the object, or all of them as "name: value" lines. A
// line that is no JSON, is longer than 4 MiB or nests deeper than 100 is skipped and counted. Wants
// UTF-8. Memory is one line and its values. One thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "client/sources/document_sink.h"
#include "client/sources/line_cutter.h"
#include "client/sources/skip_log.h"

namespace corpusd::sources {

class JsonLines : public PieceConsumer {
 public:
  static constexpr size_t kLineBytesMax = size_t{4} << 20;

  // text_field: "body", or "message.text" for one inside another; empty: the whole object.
  JsonLines(std::string path, std::string text_field, DocumentSink& sink, SkipLog& skips);

  bool Write(std::string_view piece) override { return cutter_.Write(piece); }
  bool Finish() override { return cutter_.Finish(); }

 private:
  bool TakePart(const LinePart& part);

  const std::string path_;
  const std::string text_field_;
  DocumentSink& sink_;
  SkipLog& skips_;
  LineCutter cutter_;
};

// The text of one line as a document, or nothing and why. Exposed for its test.
struct RenderedLine {
  std::optional<std::string> text;
  SkipReason reason = SkipReason::kBadLine;
};
RenderedLine RenderJsonLine(std::string_view line, const std::string& text_field);

}  // namespace corpusd::sources
