// client/sources/file_reader.h -- reading files and pipes in pieces, without being fooled by what a
// name stands for by the time it is opened. Blocking; any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "client/client_error.h"

namespace corpusd::sources {

// Closes the file that it holds.
class Descriptor {
 public:
  explicit Descriptor(int file) : file_(file) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : file_(other.file_) { other.file_ = -1; }
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return file_; }

 private:
  int file_;
};

// RETURNS "io_error" if the path cannot be opened or is no regular file; a link is refused unless
// follow_link. Never waits for the other end of a FIFO.
ClientResult<Descriptor> OpenRegularFile(const std::string& path, bool follow_link);

// Calls on_piece with the bytes of a file that the caller opened and closes, at most 1 MiB each,
// until it returns false; name is for the error text. A signal that cuts a wait short and sets
// *interrupted (which may be null) ends it with "interrupted".
ClientResult<Done> ReadDescriptor(int file, const std::string& name,
                                  const std::atomic<bool>* interrupted,
                                  const std::function<bool(std::string_view piece)>& on_piece);

// The first bytes of a file, at most bytes_max. RETURNS "io_error" as OpenRegularFile.
ClientResult<std::string> ReadSample(const std::string& path, bool follow_link, size_t bytes_max);

// The whole of a small file, such as a preamble. RETURNS "not_found", "io_error", or
// "invalid_argument" when it is longer than bytes_max.
ClientResult<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max);

// "doing what 'path' failed: No such file".
ClientError IoFailure(const std::string& what, const std::string& path, int error);

}  // namespace corpusd::sources
