// engine/ranks/weight_rank.h -- a rank that has a part of another's weights and computes the
// products that it is asked for: no text, no blocks, no attention. Serves one connection at a time,
// on one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/model/model.h"
#include "engine/ranks/tcp_socket.h"
#include "engine/ranks/weight_message.h"
#include "engine/ranks/weight_parts.h"

namespace corpusd {

struct WeightRankOptions {
  std::string model_path;
  std::string device = "cpu";
  std::string isa = "auto";
  std::string weights = "auto";  // as EngineOptions has it, alike on all ranks
  unsigned threads = 0;          // 0: all cores
  std::string cache_dir;         // where the weights digest is remembered; "": nowhere
  WeightSeat seat;
};

class WeightRank {
 public:
  // Loads the part. kUnimplemented: a device whose memory the host cannot address.
  static Result<std::unique_ptr<WeightRank>> Create(const WeightRankOptions& options);
  ~WeightRank();

  uint64_t weight_bytes() const { return parts_->weight_bytes(); }
  std::string backend() const { return std::string(local_->name()); }
  // Does what the other end asks until it goes or `stopped`. RETURNS why it ended; kInternal: the
  // other end asked for what is not there.
  Status Serve(const Socket& socket, const std::function<bool()>& stopped);
  // Takes whoever connects, one after the other, until `stopped`.
  Status ServeAll(const Socket& listener, const std::function<bool()>& stopped,
                  const std::function<void(const std::string& what)>& on_change);

 private:
  WeightRank() = default;
  Status Greet(const Socket& socket);
  Status ServeOne(const Socket& socket);
  Status ServeProduct(const Socket& socket, const WeightRequest& request);
  Status ServeTable(const Socket& socket, const WeightRequest& request);
  Status ServeExperts(const Socket& socket, const WeightRequest& request);
  // The inner size of these experts, all of which are here.
  Result<uint32_t> InnerOf(const WeightRequest& request,
                           std::span<const WeightExpert> experts) const;
  // A matrix of memory that stays.
  Result<MatrixView> Memory(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint64_t cols);

  WeightSeat seat_;
  std::string weights_;  // digest
  std::unique_ptr<Backend> local_;
  std::unique_ptr<PartBackend> parts_;
  std::unique_ptr<Model> model_;  // owns the parts
  std::unique_ptr<Buffer> in_, out_, logits_, gathered_, result_, gate_up_, activated_;
};

}  // namespace corpusd
