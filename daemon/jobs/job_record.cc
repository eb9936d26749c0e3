#include "daemon/jobs/job_record.h"

#include <array>
#include <nlohmann/json.hpp>

namespace corpusd {
namespace {

constexpr std::array<std::string_view, 5> kStateTexts = {"queued", "running", "done", "failed",
                                                         "cancelled"};

// Reads one field if it is there and of the right kind; older and newer records lack or add some.
class FieldReader {
 public:
  explicit FieldReader(const nlohmann::json& object) : object_(object) {}

  template <typename T>
  void Number(const char* name, T* target) {
    const auto field = object_.find(name);
    if (field != object_.end() && field->is_number()) *target = field->get<T>();
  }
  void Text(const char* name, std::string* target) {
    const auto field = object_.find(name);
    if (field != object_.end() && field->is_string()) *target = field->get<std::string>();
  }

 private:
  const nlohmann::json& object_;
};

}  // namespace

std::string_view JobStateText(JobState state) { return kStateTexts[static_cast<size_t>(state)]; }

std::string EncodeJob(const JobRecord& job) {
  nlohmann::json object = {
      {"version", 1},
      {"id", job.id},
      {"kind", job.kind},
      {"corpus", job.corpus},
      {"state", JobStateText(job.state)},
      {"done_tokens", job.done_tokens},
      {"total_tokens", job.total_tokens},
      {"reused_tokens", job.reused_tokens},
      {"written_bytes", job.written_bytes},
      {"tokens_per_s", job.tokens_per_s},
      {"error", job.error},
      {"created_at_ms", job.created_at_ms},
      {"started_at_ms", job.started_at_ms},
      {"finished_at_ms", job.finished_at_ms},
      {"resumed_times", job.resumed_times},
      {"failed_times", job.failed_times},
      {"retry_at_ms", job.retry_at_ms},
      {"cancel_asked", job.cancel_asked},
  };
  if (job.scrub) object["scrub"] = EncodeScrub(*job.scrub);
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<JobRecord> DecodeJob(std::string_view text) {
  const nlohmann::json object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return CorruptionError("a stored job is no JSON object");
  JobRecord job;
  FieldReader reader(object);
  std::string state;
  reader.Number("id", &job.id);
  reader.Text("kind", &job.kind);
  reader.Text("corpus", &job.corpus);
  reader.Text("state", &state);
  reader.Number("done_tokens", &job.done_tokens);
  reader.Number("total_tokens", &job.total_tokens);
  reader.Number("reused_tokens", &job.reused_tokens);
  reader.Number("written_bytes", &job.written_bytes);
  reader.Number("tokens_per_s", &job.tokens_per_s);
  reader.Text("error", &job.error);
  reader.Number("created_at_ms", &job.created_at_ms);
  reader.Number("started_at_ms", &job.started_at_ms);
  reader.Number("finished_at_ms", &job.finished_at_ms);
  reader.Number("resumed_times", &job.resumed_times);
  reader.Number("failed_times", &job.failed_times);
  reader.Number("retry_at_ms", &job.retry_at_ms);
  const auto cancel = object.find("cancel_asked");
  job.cancel_asked = cancel != object.end() && cancel->is_boolean() && cancel->get<bool>();
  if (job.kind == "scrub") job.scrub = DecodeScrub(object.value("scrub", nlohmann::json()));
  for (size_t i = 0; i < kStateTexts.size(); ++i) {
    if (state != kStateTexts[i]) continue;
    job.state = static_cast<JobState>(i);
    if (job.id == 0 || job.corpus.empty() != job.scrub.has_value()) break;
    return job;
  }
  return CorruptionError("a stored job lacks its id, corpus or a known state");
}

}  // namespace corpusd
