#include "daemon/http/corpus_create.h"

#include <condition_variable>
#include <mutex>
#include <stop_token>

#include "daemon/http/corpora_handler.h"
#include "daemon/http/json_text.h"
#include "daemon/http/perform.h"
#include "daemon/http/source_files.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/rpc/call_runner.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/ingest_call.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr std::string_view kRoute = "/v1/corpora";

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kSourcesMax = 1024;
constexpr size_t kPathBytesMax = 4096;
// Read from files and not yet tokenized.
constexpr uint64_t kWaitingBytesMax = uint64_t{8} << 20;

void ReadContents(JsonFields* fields, CorpusCreation* creation) {
  const Json* const contents = fields->Find("contents");
  if (contents == nullptr) return;
  if (contents->is_string()) {
    creation->contents.emplace_back("text", contents->get_ref<const std::string&>());
    return;
  }
  if (!contents->is_array() || contents->empty()) {
    return fields->Refuse("contents", "must be a text, or an array of texts and {path, text}");
  }
  for (size_t i = 0; i < contents->size(); ++i) {
    const Json& entry = (*contents)[i];
    std::string path = "text-" + std::to_string(i + 1);
    if (entry.is_string()) {
      creation->contents.emplace_back(path, entry.get_ref<const std::string&>());
      continue;
    }
    const std::string name = "contents[" + std::to_string(i) + "]";
    JsonFields inside(entry, name + ".");
    if (!entry.is_object() || inside.Find("text") == nullptr) {
      return fields->Refuse(name, "must be a text or {path, text}");
    }
    path = inside.Text("path", path);
    if (path.empty() || path.size() > kPathBytesMax) inside.Refuse("path", "is empty or too long");
    creation->contents.emplace_back(path, inside.Text("text"));
    if (inside.error()) return fields->Refuse(*inside.error());
  }
}

// The ingest's end as a response: 202 with the corpus, or the error.
class CreateSink : public ResponseSink {
 public:
  CreateSink(HttpContext& context, std::shared_ptr<HttpExchange> exchange, std::string key)
      : context_(context), exchange_(std::move(exchange)), key_(std::move(key)) {}

  bool Send(const v1::Response& response) override {
    HttpResponse reply;
    if (response.has_error()) {
      reply = ErrorReply(
          Status(static_cast<StatusCode>(response.error().code()), response.error().message()));
    } else {
      v1::Corpus corpus = response.ingest().corpus();
      corpus.set_job_id(response.ingest().job().id());
      reply = CorpusReply(context_.services(), corpus, 202);
      reply.headers.push_back({"Location", "/v1/corpora/" + corpus.name()});
    }
    if (!key_.empty()) context_.idempotency().End(key_, reply);
    exchange_->Send(std::move(reply));
    return true;
  }

 private:
  HttpContext& context_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string key_;
};

// Counts bytes that an ingest has not taken yet, and lets the reader of files wait for it.
class Waiting {
 public:
  void Add(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ += bytes;
  }
  void Taken(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ -= bytes;
    changed_.notify_all();
  }
  // RETURNS false if the call was stopped first.
  bool ForRoom(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    return changed_.wait(lock, stop, [&] { return bytes_ <= kWaitingBytesMax; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  uint64_t bytes_ = 0;
};

struct Ingest {
  std::shared_ptr<Call> call;
  std::shared_ptr<IngestCall> ingest;
  std::shared_ptr<Waiting> waiting;

  void Put(const std::string& path, std::string content, bool first, bool last) const {
    v1::IngestData data;
    if (first) data.set_path(path);
    data.set_content(std::move(content));
    data.set_last(last);
    waiting->Add(data.content().size() + data.path().size());
    ingest->Data(std::move(data));
  }
};

void PutContents(const Ingest& ingest, const CorpusCreation& creation) {
  for (const auto& [path, text] : creation.contents) {
    size_t at = 0;
    do {
      const size_t bytes = std::min(kPieceBytes, text.size() - at);
      ingest.Put(path, text.substr(at, bytes), at == 0, at + bytes == text.size());
      at += bytes;
    } while (at < text.size());
  }
}

Status PutFiles(const Services& services, const Ingest& ingest, const CorpusCreation& creation,
                uint64_t* skipped) {
  if (creation.sources.empty()) return OkStatus();
  ASSIGN_OR_RETURN(SourceFiles files, SourceFiles::Open(services.options.http_source_roots));
  for (const std::string& source : creation.sources) RETURN_IF_ERROR(files.Add(source));
  std::string open_path;
  const Status status =
      files.Read([&](const std::string& path, std::string content, bool last) -> Status {
        const std::stop_token stop = ingest.call->stop_token();
        if (ingest.call->ended() || !ingest.waiting->ForRoom(stop)) {
          return CancelledError("the ingest has ended");
        }
        ingest.Put(path, std::move(content), path != open_path, last);
        open_path = last ? "" : path;
        return OkStatus();
      });
  *skipped = files.skipped();
  return status;
}

std::string FingerprintOf(const std::string& body) {
  Sha256 sha256;
  sha256.Update(std::string_view(body));
  return HexText(sha256.Finish());
}

// A key is its sender's own.
std::string KeyOf(const HttpRequest& request) {
  const std::string* const key = request.Header("Idempotency-Key");
  if (key == nullptr) return "";
  const Identity& identity = request.identity;
  return (identity.tcp ? "tcp" : std::to_string(identity.peer.uid)) + " " +
         identity.token.value_or("") + " " + *key;
}

void Create(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange,
            const std::string& key, CorpusCreation creation) {
  const Services& services = context.services();
  const HttpRequest& request = exchange->request();
  Ingest ingest;
  v1::Request begin;
  *begin.mutable_ingest_begin() = creation.begin;
  std::shared_ptr<ResponseSink> sink = std::make_shared<CreateSink>(context, exchange, key);
  Peer acting;
  const Status admitted = Admit(context, request.identity, &begin, &sink, &acting).status();
  ingest.waiting = std::make_shared<Waiting>();
  ingest.call = std::make_shared<Call>(
      1, sink, services.timers,
      [&metrics = services.metrics](StatusCode code) { metrics.OnRequest("http", kRoute, code); });
  ingest.call->set_label(request.id);
  if (!admitted.ok()) return ingest.call->Fail(admitted);
  // Between its pieces nobody works on an ingest, so it must end by itself when cancelled.
  ingest.call->OnStop([weak = std::weak_ptr<Call>(ingest.call)] {
    if (const auto call = weak.lock()) call->Fail(CancelledError("the ingest was cancelled"));
  });
  exchange->OnStop([weak = std::weak_ptr<Call>(ingest.call)](const Status& why) {
    if (const auto call = weak.lock()) call->Cancel(why);
  });
  ingest.ingest = std::make_shared<IngestCall>(
      services, acting, ingest.call, std::move(*begin.mutable_ingest_begin()),
      [waiting = ingest.waiting](uint64_t bytes) { waiting->Taken(bytes); });
  ingest.ingest->Begin();
  PutContents(ingest, creation);
  if (creation.sources.empty()) return ingest.ingest->End({});
  RunCall(services.slow, ingest.call, "http " + request.id + ", " + IdentityText(request.identity),
          [&services, ingest, creation = std::move(creation)] {
            v1::IngestEnd end;
            uint64_t skipped = 0;
            const Status status = PutFiles(services, ingest, creation, &skipped);
            if (!status.ok()) return ingest.call->Fail(status);
            end.set_skipped_files(skipped);
            ingest.ingest->End(end);
          });
}

}  // namespace

CorpusCreation ReadCorpusCreation(std::string_view body) {
  CorpusCreation creation;
  const auto json = ParseJsonObject(body);
  if (!json.ok()) {
    creation.error = ToApiError(json.status());
    return creation;
  }
  JsonFields fields(*json);
  v1::IngestBegin& begin = creation.begin;
  begin.set_name(fields.Text("name"));
  const Status good = CheckCorpusName(begin.name());
  if (!good.ok()) fields.Refuse(ToApiError(good, "name"));
  begin.set_mode(fields.Text("mode"));
  begin.set_kv_format(fields.Text("kv_format"));
  begin.set_preamble(fields.Text("preamble"));
  begin.set_ttl_ms(ReadTtl(&fields, "ttl", 0));
  begin.set_pin(fields.Flag("pinned", false));
  begin.set_priority(fields.Text("priority"));
  ReadContents(&fields, &creation);
  creation.sources = fields.Texts("sources", kSourcesMax);
  if (creation.contents.empty() && creation.sources.empty()) {
    fields.Refuse("contents", "or 'sources' must say what the corpus is made of");
  }
  creation.error = fields.error();
  return creation;
}

void AnswerCreateCorpus(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange) {
  const HttpRequest& request = exchange->request();
  CorpusCreation creation = ReadCorpusCreation(request.body);
  if (creation.error) return context.Send(*exchange, kRoute, ErrorReply(*creation.error));
  const std::string key = KeyOf(request);
  if (key.size() > IdempotencyKeys::kKeyBytesMax) {
    return context.Send(*exchange, kRoute,
                        ErrorReply(BadRequest("the Idempotency-Key is too long")));
  }
  if (!key.empty()) {
    auto again =
        context.idempotency().Begin(key, FingerprintOf(request.body), context.services().now_ms());
    if (again) return context.Send(*exchange, kRoute, *std::move(again));
  }
  Create(context, exchange, key, std::move(creation));
}

}  // namespace corpusd
