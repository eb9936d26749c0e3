// corpusctl: the command line of corpusd. Sets up signals and the console; everything else is
// RunCorpusctl.
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"

namespace {

// NOLINTNEXTLINE(*-avoid-non-const-global-variables): a signal handler can reach nothing else
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");

// The first Ctrl-C stops the call in an orderly way; a second one does not wait for that.
extern "C" void OnInterrupt(int) {
  if (interrupted.exchange(true)) _exit(corpusd::ctl::kExitInterrupted);
}

void CatchInterrupts() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: a blocked read or poll has to come back
  sigaction(SIGINT, &action, nullptr);
}

bool HasText(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

bool AllowsColor() {
  const char* terminal = std::getenv("TERM");
  return !HasText("NO_COLOR") && (terminal == nullptr || std::string_view(terminal) != "dumb");
}

int TerminalWidth() {
  struct winsize size {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

int64_t NowMs() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

int main(int argc, char** argv) {
  CatchInterrupts();
  std::ios::sync_with_stdio(false);
  std::cin.tie(nullptr);
  corpusd::ctl::Console console{.in = std::cin,
                                .out = std::cout,
                                .err = std::cerr,
                                .in_file = STDIN_FILENO,
                                .in_is_terminal = isatty(STDIN_FILENO) == 1,
                                .out_is_terminal = isatty(STDOUT_FILENO) == 1,
                                .err_is_terminal = isatty(STDERR_FILENO) == 1,
                                .allows_color = AllowsColor(),
                                .width = TerminalWidth(),
                                .interrupted = &interrupted,
                                .now_ms = NowMs};
  const std::vector<std::string> words(argv + 1, argv + argc);
  const int exit_code = corpusd::ctl::RunCorpusctl(words, console);
  std::cout.flush();
  if (!std::cout && exit_code == corpusd::ctl::kExitOk) {
    std::cerr << "corpusctl: writing the output failed\n";
    return corpusd::ctl::kExitOther;
  }
  return exit_code;
}
