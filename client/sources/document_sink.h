// client/sources/document_sink.h -- the two ends of reading: a PieceConsumer takes the bytes of one
// source as they come, a DocumentSink takes the documents made of them. Between them stand parts
// that cut and convert, each a PieceConsumer that knows what comes next. Nothing here keeps a
// document whole. One thread; whoever makes a chain owns its parts.
#pragma once

#include <string_view>

namespace corpusd::sources {

// Each document is Begin, any number of Write, End. false from any of them: stop reading.
class DocumentSink {
 public:
  virtual ~DocumentSink() = default;
  // label: where the document comes from, UTF-8 and never empty: a path, and for a part of a file
  // what follows it ("mail.mbox#17 Subject", "data.jsonl#12", "app.log#L1-L900", "a.zip!b.txt").
  virtual bool Begin(std::string_view label) = 0;
  virtual bool Write(std::string_view text) = 0;  // UTF-8; a character may be cut by a piece's end
  virtual bool End() = 0;
};

// The bytes of a source in pieces of any size, then Finish. false: no more is wanted.
class PieceConsumer {
 public:
  virtual ~PieceConsumer() = default;
  virtual bool Write(std::string_view piece) = 0;
  virtual bool Finish() = 0;
};

}  // namespace corpusd::sources
