// tests/support/temp_dir.h -- a fresh folder that disappears with the object. Under $TMPDIR, or
// /tmp. One owner; any thread may write files into it.
#pragma once

#include <string>
#include <string_view>

namespace corpusd {

class TempDir {
 public:
  TempDir();  // aborts the test program if no folder can be made
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // The path of a file inside, which need not exist.
  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Writes a whole file, replacing one of that name. RETURNS its path; aborts if it cannot.
  std::string Write(std::string_view name, std::string_view bytes) const;

 private:
  std::string path_;
};

}  // namespace corpusd
