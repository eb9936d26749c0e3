// client/sources/log_cutter.h -- LogCutter: a log as documents of bounded size, cut between lines
// and named after them ("app.log#L1-L900"), so that what is appended to a log changes its last
// document only, and every line is found again (client/sources/line_label.h). Wants UTF-8. Memory
// is one document. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "client/sources/document_sink.h"
#include "client/sources/line_cutter.h"

namespace corpusd::sources {

class LogCutter : public PieceConsumer {
 public:
  // A document is at most so long, unless one line is longer; that is cut at kLineBytesMax.
  static constexpr size_t kDocumentBytes = size_t{64} << 10;
  static constexpr size_t kLineBytesMax = size_t{1} << 20;

  LogCutter(std::string path, DocumentSink& sink);

  bool Write(std::string_view piece) override { return cutter_.Write(piece); }
  bool Finish() override { return cutter_.Finish() && SendDocument(); }

 private:
  bool TakePart(const LinePart& part);
  bool SendDocument();

  const std::string path_;
  DocumentSink& sink_;
  LineCutter cutter_;
  std::string document_;
  uint64_t first_line_ = 0;  // of document_
  uint64_t last_line_ = 0;
};

}  // namespace corpusd::sources
