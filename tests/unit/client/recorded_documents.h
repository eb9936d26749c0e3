// tests/unit/client/recorded_documents.h -- RecordedDocuments: a sink that keeps what it gets, and
// fails the test if documents are not begun and ended in turn. One thread.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/sources/document_sink.h"

namespace corpusd::sources {

class RecordedDocuments : public DocumentSink {
 public:
  using Document = std::pair<std::string, std::string>;  // label, text

  bool Begin(std::string_view label) override {
    EXPECT_FALSE(open_) << label;
    EXPECT_FALSE(label.empty());
    open_ = true;
    documents_.emplace_back(std::string(label), "");
    return documents_.size() <= documents_max;
  }
  bool Write(std::string_view text) override {
    EXPECT_TRUE(open_);
    documents_.back().second += text;
    return true;
  }
  bool End() override {
    EXPECT_TRUE(open_);
    open_ = false;
    return true;
  }

  const std::vector<Document>& documents() const { return documents_; }
  std::vector<std::string> labels() const {
    std::vector<std::string> labels;
    for (const Document& document : documents_) labels.push_back(document.first);
    return labels;
  }

  size_t documents_max = 1000000;  // Begin says no beyond them

 private:
  std::vector<Document> documents_;
  bool open_ = false;
};

// Writes text in pieces of that many bytes, and finishes.
inline bool Feed(PieceConsumer& consumer, std::string_view text, size_t piece_bytes) {
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, piece_bytes);
    if (!consumer.Write(piece)) return false;
    text.remove_prefix(piece.size());
  }
  return consumer.Finish();
}

}  // namespace corpusd::sources
