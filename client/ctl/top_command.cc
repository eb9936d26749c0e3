// top: the daemon as it is, again and again, until q or Ctrl-C; once with --once.
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/top_screen.h"

namespace corpusd::ctl {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kIntervalDefault{2000}, kIntervalMin{100}, kOnceDefault{1000};

// Nothing to do: poll(2) comes back early, and the next frame has the new size.
extern "C" void OnResize(int) {}

// The terminal while top owns it: another screen, no cursor, keys without Enter. Given back in the
// destructor.
class Screen {
 public:
  Screen(Console& console, bool takes_keys) : console_(console) {
    if (takes_keys && tcgetattr(console.in_file, &saved_) == 0) {
      termios keys = saved_;
      keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      has_keys_ = tcsetattr(console.in_file, TCSANOW, &keys) == 0;
    }
    struct sigaction action {};
    action.sa_handler = OnResize;
    sigaction(SIGWINCH, &action, &saved_action_);
    console_.out << "\x1b[?1049h\x1b[?25l";
  }
  ~Screen() {
    console_.out << "\x1b[?25h\x1b[?1049l" << std::flush;
    sigaction(SIGWINCH, &saved_action_, nullptr);
    if (has_keys_) tcsetattr(console_.in_file, TCSANOW, &saved_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  bool has_keys() const { return has_keys_; }

  void Show(const std::vector<std::string>& lines) {
    std::string frame = "\x1b[H";
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) frame += "\r\n";
      frame += lines[i] + "\x1b[K";
    }
    console_.out << frame << "\x1b[J" << std::flush;
  }

 private:
  Console& console_;
  termios saved_{};
  struct sigaction saved_action_ {};
  bool has_keys_ = false;
};

TopSize SizeNow(const CommandContext& context) {
  TopSize size{context.console.width, 0, StyleOf(context).color};
  struct winsize window {};
  if (!context.console.out_is_terminal) return size;
  size.rows = 24;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 && window.ws_row > 0) {
    size.columns = window.ws_col;
    size.rows = window.ws_row;
  }
  return size;
}

ClientResult<TopReading> Read(const CommandContext& context, CorpusClient& client) {
  TopReading reading;
  auto version = client.Version();
  if (!version.ok()) return version.error();
  reading.version = *std::move(version);
  auto stats = client.Stats();
  if (!stats.ok()) return stats.error();
  reading.stats = Stats(*std::move(stats));
  reading.time_ms = context.console.now_ms();
  auto corpora = client.List();
  if (!corpora.ok()) return corpora.error();
  reading.corpora = *std::move(corpora);
  auto jobs = client.Jobs();
  if (!jobs.ok()) return jobs.error();
  reading.jobs = *std::move(jobs);
  return reading;
}

bool Interrupted(const Console& console) {
  return console.interrupted != nullptr && console.interrupted->load();
}

// RETURNS false once the user wants to leave. A resize ends the wait early.
bool WaitFor(const CommandContext& context, milliseconds interval, bool has_keys) {
  pollfd keys{context.console.in_file, POLLIN, 0};
  const int ready = poll(&keys, has_keys ? 1 : 0, static_cast<int>(interval.count()));
  if (Interrupted(context.console)) return false;
  if (ready <= 0) return true;
  char key = 0;
  if (read(context.console.in_file, &key, 1) != 1) return false;
  return key != 'q' && key != 'Q';
}

void Print(const CommandContext& context, const TopReading& before, const TopReading& now) {
  if (IsStructured(context.arguments.output)) {
    PrintStructured(context.console.out, context.arguments.output, TopToJson(before, now));
  } else {
    TopSize size = SizeNow(context);
    size.rows = 0;
    for (const std::string& line : TopLines(before, now, size)) context.console.out << line << '\n';
  }
  context.console.out.flush();
}

int Once(const CommandContext& context, CorpusClient& client, milliseconds interval) {
  auto before = Read(context, client);
  if (!before.ok()) return Fail(context, before.error());
  if (!WaitFor(context, interval, /*has_keys=*/false)) {
    return Fail(context, {kClientInterrupted, "interrupted", "interrupted while measuring"});
  }
  auto now = Read(context, client);
  if (!now.ok()) return Fail(context, now.error());
  Print(context, *before, *now);
  return kExitOk;
}

int Live(const CommandContext& context, CorpusClient& client, milliseconds interval) {
  const Console& console = context.console;
  const bool structured = IsStructured(context.arguments.output);
  std::optional<Screen> screen;
  if (console.out_is_terminal && !structured) {
    screen.emplace(context.console, console.in_is_terminal);
  }
  std::optional<TopReading> before;
  for (;;) {
    auto now = Read(context, client);
    if (!now.ok()) {
      screen.reset();
      if (Interrupted(console)) return kExitOk;
      return Fail(context, now.error());
    }
    const TopReading& since = before ? *before : *now;
    if (screen) {
      screen->Show(TopLines(since, *now, SizeNow(context)));
    } else if (before) {
      Print(context, since, *now);
      if (!structured) context.console.out << '\n' << std::flush;
    }
    if (!console.out.good()) return kExitOk;  // who read it has gone
    before = *std::move(now);
    if (!WaitFor(context, interval, screen && screen->has_keys())) return kExitOk;
  }
}

}  // namespace

int RunTop(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  // Only jsonl can hold more than one object.
  const bool once = arguments.once || arguments.output == OutputMode::kJson ||
                    arguments.output == OutputMode::kYaml || arguments.output == OutputMode::kName;
  const milliseconds usual = once ? kOnceDefault : kIntervalDefault;
  const milliseconds interval = std::max(arguments.interval.value_or(usual), kIntervalMin);
  return once ? Once(context, **client, interval) : Live(context, **client, interval);
}

}  // namespace corpusd::ctl
