// client/ctl/console.h -- Console: the streams of the process and what is known of them. Filled by
// main (or a test), borrowed by the commands; one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <istream>
#include <ostream>

namespace corpusd::ctl {

struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  int in_file = 0;  // what --stdin reads
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool allows_color = false;  // NO_COLOR is unset and the terminal is no dumb one
  int width = 80;
  const std::atomic<bool>* interrupted = nullptr;  // set by Ctrl-C
  std::function<int64_t()> now_ms;
};

}  // namespace corpusd::ctl
