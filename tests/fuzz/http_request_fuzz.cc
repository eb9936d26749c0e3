// Any bytes as what an HTTP client sends: the target of a request line, headers, and bodies of the
// routes that read most.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "daemon/http/completion_request.h"
#include "daemon/http/corpus_create.h"
#include "daemon/http/http_message.h"

namespace {

void ReadHead(std::string_view text) {
  corpusd::HttpRequest request;
  const size_t line = text.find('\n');
  const corpusd::Status status = corpusd::ParseTarget(text.substr(0, line), &request);
  for (const std::string& segment : request.segments) {
    // What a handler could take for a way up, or for the end of a text.
    if (status.ok() && (segment == ".." || segment.find('/') != std::string::npos ||
                        segment.find('\0') != std::string::npos)) {
      std::abort();
    }
  }
  while (text.find('\n') != std::string_view::npos) {
    text.remove_prefix(text.find('\n') + 1);
    const std::string_view header = text.substr(0, text.find('\n'));
    const size_t colon = std::min(header.find(':'), header.size());
    request.headers.push_back({std::string(header.substr(0, colon)),
                               std::string(header.substr(std::min(header.size(), colon + 1)))});
  }
  (void)corpusd::CheckFraming(11, request.headers);
  (void)corpusd::CheckOrigin(request.headers);
}

void ReadBodies(std::string_view text) {
  for (const bool chat : {true, false}) {
    const corpusd::CompletionRead read = corpusd::ReadCompletion("model", chat, text);
    if (!read.error && read.request.ask.question().empty()) std::abort();
    if (read.error && read.error->status < 400) std::abort();
  }
  const corpusd::CorpusCreation creation = corpusd::ReadCorpusCreation(text);
  if (!creation.error && creation.contents.empty() && creation.sources.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ReadHead(text);
  ReadBodies(text);
  return 0;
}
