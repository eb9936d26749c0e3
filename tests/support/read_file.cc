#include "tests/support/read_file.h"

#include <fstream>
#include <sstream>

namespace corpusd {

Result<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFoundError("cannot open " + path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return IoError("cannot read " + path);
  return std::move(text).str();
}

}  // namespace corpusd
