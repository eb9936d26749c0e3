// client/sources/line_label.h -- labels of documents that are some lines of a file, and the way
// back from a line of such a document to the line of its file. "app.log#L901-L1800" holds the lines
// 901 to 1800 of app.log, so its line 3 is line 903 there; "data.jsonl#L12" was made of line 12,
// whatever it looks like. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace corpusd::sources {

// "app.log#L901-L1800".
std::string LinesLabel(std::string_view path, uint64_t first, uint64_t last);
// "data.jsonl#L12".
std::string LineLabel(std::string_view path, uint64_t line);

struct FileLines {
  std::string_view path;  // a part of the label, the whole of it where lines are the document's own
  uint64_t first = 0;
  uint64_t last = 0;
};

// Where the lines first to last of the document (from 1) lie in its file. first 0: not known.
FileLines LinesInFile(std::string_view label, uint64_t first, uint64_t last);

}  // namespace corpusd::sources
