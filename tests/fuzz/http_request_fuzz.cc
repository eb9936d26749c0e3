// Any bytes as what an HTTP client sends: the target of a request line, headers, JSON, and bodies
// of the routes that read most; and as the text of an answer.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "client/wire/utf8.h"
#include "daemon/http/completion_request.h"
#include "daemon/http/corpus_create.h"
#include "daemon/http/http_message.h"
#include "daemon/http/json_text.h"

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

size_t DepthOf(const corpusd::Json& value) {
  size_t deepest = 0;
  if (!value.is_structured()) return 0;
  for (const corpusd::Json& inside : value) deepest = std::max(deepest, DepthOf(inside));
  return deepest + 1;
}

// What is read is no deeper than is said, and is written as JSON that is read as the same.
void ReadJson(std::string_view text) {
  const auto json = corpusd::ParseJson(text);
  if (!json.ok()) return;
  if (DepthOf(*json) > corpusd::kJsonDepthMax) std::abort();
  const std::string written = corpusd::JsonText(corpusd::OrderedJson(*json));
  if (!corpusd::IsUtf8(written)) std::abort();
  const auto again = corpusd::ParseJson(written);
  if (!again.ok() || *again != *json) std::abort();
}

// Any bytes as text of an answer: a model's token may end within a character.
void WriteJson(std::string_view text) {
  corpusd::OrderedJson body;
  body["text"] = std::string(text);
  if (!corpusd::IsUtf8(corpusd::JsonText(body))) std::abort();
}

// Protobuf refuses a message whose text is not UTF-8.
void CheckTexts(const corpusd::v1::AskRequest& ask) {
  bool good = corpusd::IsUtf8(ask.question()) && corpusd::IsUtf8(ask.name());
  for (const auto& message : ask.messages()) good = good && corpusd::IsUtf8(message.content());
  for (const std::string& stop : ask.stop()) good = good && corpusd::IsUtf8(stop);
  if (!good) std::abort();
}

void ReadBodies(std::string_view text) {
  for (const bool chat : {true, false}) {
    const corpusd::CompletionRead read = corpusd::ReadCompletion("model", chat, text);
    if (!read.error && read.request.ask.question().empty()) std::abort();
    if (read.error && read.error->status < 400) std::abort();
    if (!read.error) CheckTexts(read.request.ask);
  }
  const corpusd::CorpusCreation creation = corpusd::ReadCorpusCreation(text);
  if (!creation.error && creation.contents.empty() && creation.sources.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ReadHead(text);
  ReadJson(text);
  WriteJson(text);
  ReadBodies(text);
  return 0;
}
