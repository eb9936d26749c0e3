#include <algorithm>
#include <cctype>

#include "daemon/options.h"

namespace corpusd {

std::string OptionSpec::Key() const {
  std::string key(flag);
  std::replace(key.begin(), key.end(), '-', '_');
  if (!section.empty()) key[section.size()] = '.';
  return key;
}

std::string OptionSpec::Variable() const {
  std::string variable = "CORPUSD_" + std::string(flag);
  std::transform(variable.begin(), variable.end(), variable.begin(), [](unsigned char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(c));
  });
  return variable;
}

namespace {

std::vector<OptionSpec> OptionsWithoutSection() {
  return {
      {"data-dir", "DIR", "",
       "where corpora are kept, a daemon each. Default: $XDG_STATE_HOME/corpusd, else "
       "/var/lib/corpusd"},
      {"socket", "PATH", "",
       "the Unix socket. Default: $XDG_RUNTIME_DIR/corpusd/corpusd.sock, else "
       "/run/corpusd/corpusd.sock"},
      {"socket-mode", "OCTAL", "0660", "permissions of the socket: who may connect"},
      {"access", "FILE.toml", "",
       "roles and tenants of users, groups and tokens; read again at SIGHUP. Default: all may all"},
      {"http", "ADDRESS,..|off", "off",
       "where HTTP is spoken: 127.0.0.1:8040, unix:PATH, fd:NAME (handed over); several with "
       "commas"},
      {"http-max-body-bytes", "SIZE", "16MiB", "of a corpus sent in one request; others: 4MiB"},
      {"http-max-connections", "N", "256", "HTTP clients at once; more are told to come again"},
      {"http-header-timeout", "TIME", "10s", "for the head of a request, from its first byte"},
      {"http-body-timeout", "TIME", "60s", "for the body of a request"},
      {"http-idle-timeout", "TIME", "75s", "how long an HTTP connection is kept without requests"},
      {"http-source-roots", "DIR,..", "",
       "folders that POST /v1/corpora may read sources from; none: texts come in the request"},
      {"model", "FILE.gguf|FOLDER", "",
       "the model: a GGUF file, or a folder with config.json and safetensors; required"},
      {"weights", "auto|bf16|int8|int4", "auto",
       "as what matrices are kept that the files hold wider; auto: as the files have them"},
      {"device", "auto|cpu|cuda:N,..", "auto",
       "where the model runs; auto: the first CUDA device, if there is one; cuda:0,1: a rank on "
       "each"},
      {"ranks", "N", "1",
       "CPU ranks that compute corpora together, threads of this process, each with its own "
       "weights"},
      {"tensor-parallel", "N", "1",
       "every N ranks or CUDA devices share the weights, the first of them has their text"},
      {"rank-file", "FILE", "",
       "ranks that are processes, on several hosts: a line host:port for each, the daemon first"},
      {"rank", "K", "0",
       "which line of the rank file this is, from 0; above 0 it serves no clients but rank 0"},
      {"rank-timeout", "TIME", "5m", "how long a rank is waited for before it counts as lost"},
      {"isa", "NAME", "auto", "lowers the CPU's instruction set: auto, avx2, avx512, amx"},
      {"kv-format", "FORMAT", "auto",
       "of new corpora: bf16, int8, cq8, cq4, cq3, cq2; cq4k2v; by layer cq4+0-1:cq8; auto: cq8 or "
       "bf16"},
      {"calibration-text", "FILE", "",
       "a text that the cq formats are fitted to, once a model. Default: a bundled one"},
      {"quality-kld-max", "NATS", "0.05",
       "an ingest warns when its KV format costs more than this mean KL divergence on a sample"},
      {"host-bytes", "SIZE", "4GiB", "memory for blocks, such as 4GiB or 512MB"},
      {"disk-bytes", "SIZE", "100GiB", "disk for blocks, in physical bytes"},
      {"disk-eviction", "auto|off", "auto",
       "auto: what is unpinned and little used leaves a full disk tier; off: an ingest is refused"},
      {"disk-high-percent", "N", "95", "of disk_bytes: eviction begins above it"},
      {"disk-low-percent", "N", "90", "of disk_bytes: eviction ends at it"},
      {"device-bytes", "SIZE", "0",
       "memory of a CUDA device for blocks; 0: half of what is free there"},
      {"host-memory", "grow|touch", "grow",
       "grow: memory comes a little ahead of blocks; touch: all at the start, while serving"},
      {"inflight-bytes", "SIZE", "96MiB", "bytes on their way between tiers at any moment"},
      {"prompt-cache-bytes", "SIZE", "256MiB",
       "memory for prompts without a corpus, so that the next one like them computes less; 0: "
       "none"},
      {"threads", "N", "0", "compute threads; 0: all cores"},
      {"log-level", "LEVEL", "info", "trace, debug, info, warn, error or off"},
      {"log-format", "text|json", "text", "lines for people or JSON lines"},
      {"log-file", "FILE", "",
       "where they go, and all of stderr; opened again on SIGHUP. Default: stderr as it is"},
      {"max-frame-bytes", "SIZE", "16MiB", "a larger request or answer closes its connection"},
      {"max-connections", "N", "256", "clients at once; more are told to come again"},
      {"max-queries", "N", "8", "questions answered at once; more wait their turn"},
      {"grace", "TIME", "10s", "how long running questions may go on after SIGTERM"},
  };
}

std::vector<OptionSpec> OptionsOfSections() {
  return {
      {"pins-owner-bytes", "SIZE", "0",
       "disk that the pins of one user may promise; 0: no limit but the total", "pins"},
      {"pins-total-bytes", "SIZE", "0",
       "disk that all pins together may promise; 0: nine tenths of disk_bytes", "pins"},
      {"prices-currency", "NAME", "USD", "of the prices below, as plan and show say them",
       "prices"},
      {"prices-cpu-hour", "PRICE", "0",
       "an hour of one CPU thread, if the model runs there; 0: compute has no price", "prices"},
      {"prices-gpu-hour", "PRICE", "0",
       "an hour of one GPU, if the model runs there; 0: compute has no price", "prices"},
      {"prices-gb-month", "PRICE", "0", "a month of 10^9 bytes on disk; 0: room has no price",
       "prices"},
      {"prices-rag-tokens", "N", "1024",
       "retrieved text that a question without a corpus would prefill, to compare with", "prices"},
      {"scrub-interval", "TIME|off", "7d",
       "how long after a scrub of everything stored the next begins", "scrub"},
      {"scrub-rate", "SIZE", "50MiB/s", "what a scrub may read from disk, such as 50MiB/s",
       "scrub"},
  };
}

}  // namespace

const std::vector<OptionSpec>& OptionTable() {
  static const std::vector<OptionSpec> kTable = [] {
    std::vector<OptionSpec> table = OptionsWithoutSection();
    const std::vector<OptionSpec> others = OptionsOfSections();
    table.insert(table.end(), others.begin(), others.end());
    return table;
  }();
  return kTable;
}

}  // namespace corpusd
