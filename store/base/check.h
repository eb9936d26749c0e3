// CHECK: for bugs only, never for input from a client, a file or a disk. Always on; prints the
// place, the condition and what was streamed to it, then aborts. DCHECK is for inner loops.
//   CHECK(end >= begin) << "begin " << begin << " end " << end;
#pragma once

#include <sstream>

namespace corpusd {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct CheckVoidify {
  void operator&(std::ostream& /*stream*/) const {}
};

}  // namespace corpusd

#define CHECK(condition)                    \
  (condition) ? static_cast<void>(0)        \
              : ::corpusd::CheckVoidify() & \
                    ::corpusd::CheckFailure(__FILE__, __LINE__, #condition).stream()
#ifdef NDEBUG
#define DCHECK(condition) CHECK(true || (condition))
#else
#define DCHECK(condition) CHECK(condition)
#endif
