// client/ctl/arguments.h -- Arguments: one command line, parsed and checked. Each verb reads the
// members that its flags fill. Values.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/ctl/output_format.h"

namespace corpusd::ctl {

struct Arguments {
  std::string verb;

  // Global flags.
  std::string socket_path;  // empty: the default
  OutputMode output = OutputMode::kTable;
  bool quiet = false;
  std::optional<std::chrono::milliseconds> timeout;
  bool assume_yes = false;
  bool no_color = false;

  // What the verb acts on.
  std::string
      name;  // a corpus; for job and cancel an id, for wait either, for completion the shell
  std::string new_name;  // rename
  std::vector<std::string> paths;
  std::string question;

  // ingest, append, update
  std::string mode = "auto";
  std::string kv_format;
  std::string preamble_path;
  bool pin = false;
  bool detach = false;
  bool read_stdin = false;
  std::string stdin_name = "stdin";
  std::string json_text_field;      // empty: the whole object
  uint64_t unpacked_bytes_max = 0;  // 0: the default
  bool verbose = false;             // list what is skipped

  // ask
  uint32_t max_tokens = 0;  // 0: the daemon's choice
  double temperature = 0;
  uint64_t seed = 0;
  double top_p = 1;
  uint32_t top_k = 0;  // 0: all
  double min_p = 0;
  double repetition_penalty = 1;
  uint32_t repetition_window = 0;  // 0: the daemon's choice
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::string> stops;
  uint32_t answers = 1;
  std::optional<uint32_t> top_logprobs;  // set: the likelihood of every token is printed
  bool no_stream = false;
  bool cite = false;
  bool no_cache = false;
  uint32_t budget_tokens = 0;  // 0: the daemon's choice
  std::string retrieval;       // empty: the daemon's choice

  // plan
  std::string model;              // that the daemon must serve; empty: whatever it serves
  bool measure = false;           // prefill a sample
  std::vector<uint32_t> ranks;    // numbers of GPUs to reckon with; none: none
  uint64_t plan_tokens = 0;       // of these; 0: as many as the text has
  uint64_t link_bytes_per_s = 0;  // of these; 0: as it was measured

  // pin, evict, warm, touch, wait, verify
  std::string tier;  // of --tier, --from and --to; empty: the daemon's choice
  std::string reason;
  std::string priority;  // also of ingest; empty: the daemon's choice, or as it is
  std::optional<std::chrono::milliseconds> ttl;
  bool ttl_never = false;
  bool dry_run = false;
  bool all = false;            // evict
  uint64_t to_free_bytes = 0;  // evict; 0: not said
  bool repair = false;
  std::string wait_for = "ready";

  // token
  std::string role = "reader";
  std::string tenant;  // empty: the daemon's own

  // scrub, export, import, explain-miss
  uint64_t bytes_per_s = 0;  // 0: the daemon's setting
  std::string file;          // "-": stdin or stdout
  bool force = false;        // replace an existing file

  // top; stats: name is a part of the names of metrics
  bool once = false;
  std::optional<std::chrono::milliseconds> interval;
};

}  // namespace corpusd::ctl
