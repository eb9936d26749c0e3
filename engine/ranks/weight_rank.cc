#include "engine/ranks/weight_rank.h"

#include <exception>
#include <vector>

#include "engine/backend/device_backend.h"
#include "engine/backend/expert_routing.h"
#include "engine/model/quantized_source.h"
#include "engine/ranks/rank_message.h"

namespace corpusd {
namespace {

// A look at whether all should stop.
constexpr std::chrono::milliseconds kLook{200};
// For what follows a request's first bytes.
constexpr std::chrono::milliseconds kRequestTimeout{60'000};

Deadline Soon() { return std::chrono::steady_clock::now() + kRequestTimeout; }

template <typename T>
std::span<std::byte> BytesOf(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}
std::span<std::byte> BytesOf(MatrixView m) {
  return std::as_writable_bytes(std::span(m.data, size_t{m.rows} * m.cols));
}

Status NoRequest(const std::string& what) {
  return InternalError("a rank was asked for " + what + ", which its part of the weights has not");
}

}  // namespace

WeightRank::~WeightRank() = default;

Result<std::unique_ptr<WeightRank>> WeightRank::Create(const WeightRankOptions& options) {
  std::unique_ptr<WeightRank> rank(new WeightRank);
  rank->seat_ = options.seat;
  ASSIGN_OR_RETURN(const WeightMode weights, ParseWeightMode(options.weights));
  ASSIGN_OR_RETURN(auto source, OpenModelSource(options.model_path));
  source = WithWeights(std::move(source), weights, options.threads);
  ASSIGN_OR_RETURN(rank->local_, MakeBackend(options.device, {options.threads, options.isa}));
  if (!rank->local_->host_addressable()) {
    return UnimplementedError("'" + rank->backend() +
                              "': ranks that share weights are CPUs in this version");
  }
  rank->parts_ = std::make_unique<PartBackend>(*rank->local_, options.seat);
  ASSIGN_OR_RETURN(rank->model_, LoadModel(*source, *rank->parts_));
  ASSIGN_OR_RETURN(rank->weights_, source->WeightsDigestHex(options.cache_dir));
  return rank;
}

Status WeightRank::Greet(const Socket& socket) {
  WeightHello hello;
  RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(hello), Soon()));
  if (hello.magic != WeightHello::kMagic) return InternalError("who connects is no rank");
  Status fits;
  if (hello.rank != seat_.rank || hello.ranks != seat_.ranks) {
    fits = FailedPreconditionError(
        "it has part " + std::to_string(seat_.rank) + " of " + std::to_string(seat_.ranks) +
        ", and part " + std::to_string(hello.rank) + " of " + std::to_string(hello.ranks) +
        " is wanted: give all the same rank file and --tensor-parallel");
  } else if (UnpaddedText(hello.weights) != weights_) {
    fits = FailedPreconditionError("it has other weights");
  } else if (UnpaddedText(hello.backend) != backend()) {
    fits = FailedPreconditionError("it computes with '" + backend() + "', and '" +
                                   UnpaddedText(hello.backend) +
                                   "' is wanted: give all the same --isa");
  }
  const RankReply reply = RankReply::Of(fits);
  RETURN_IF_ERROR(SendBytes(socket, std::as_bytes(std::span(&reply, 1)), Soon()));
  RETURN_IF_ERROR(fits);
  const uint64_t bytes = weight_bytes();
  return SendBytes(socket, std::as_bytes(std::span(&bytes, 1)), Soon());
}

Status WeightRank::Serve(const Socket& socket, const std::function<bool()>& stopped) {
  Status status = Greet(socket);
  try {
    while (status.ok() && !stopped()) {
      if (AwaitBytes(socket, std::chrono::steady_clock::now() + kLook)) status = ServeOne(socket);
    }
  } catch (const std::exception& error) {  // out of memory: the root of this thread
    status = InternalError(std::string("a product failed: ") + error.what());
  }
  return status.ok() ? CancelledError("it was told to stop") : status;
}

Status WeightRank::ServeAll(const Socket& listener, const std::function<bool()>& stopped,
                            const std::function<void(const std::string& what)>& on_change) {
  while (!stopped()) {
    const auto socket = AcceptTcp(listener, std::chrono::steady_clock::now() + kLook);
    if (!socket.ok()) continue;
    const Status ended = Serve(*socket, stopped);
    if (on_change) on_change("whoever asked for products has gone: " + ended.message());
  }
  return OkStatus();
}

Result<MatrixView> WeightRank::Memory(std::unique_ptr<Buffer>* buffer, uint64_t rows,
                                      uint64_t cols) {
  const uint64_t bytes = rows * cols * sizeof(float);
  if (rows > kWeightRowsMax || bytes > kWeightBytesMax) return NoRequest("so many numbers");
  if (*buffer == nullptr || (*buffer)->bytes() < bytes) {
    buffer->reset();
    ASSIGN_OR_RETURN(*buffer, local_->Allocate(bytes + bytes / 4, "products of another rank"));
  }
  return (*buffer)->Matrix(static_cast<uint32_t>(rows), static_cast<uint32_t>(cols));
}

Status WeightRank::ServeOne(const Socket& socket) {
  WeightRequest request;
  RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(request), Soon()));
  const bool known = request.weight < parts_->weights().size() &&
                     parts_->weights()[request.weight]->own() != nullptr;
  switch (request.op) {
    case WeightOp::kProduct:
      return known ? ServeProduct(socket, request) : NoRequest("a product");
    case WeightOp::kTable:
      return known ? ServeTable(socket, request) : NoRequest("rows");
    case WeightOp::kExperts:
      return ServeExperts(socket, request);
  }
  return NoRequest("something else than products");
}

Status WeightRank::ServeProduct(const Socket& socket, const WeightRequest& request) {
  const Weight& own = *parts_->weights()[request.weight]->own();
  if (request.rows == 0 || request.cols != own.cols()) return NoRequest("another product");
  ASSIGN_OR_RETURN(const MatrixView x, Memory(&in_, request.rows, own.cols()));
  ASSIGN_OR_RETURN(const MatrixView out, Memory(&out_, request.rows, own.rows()));
  RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(x), Soon()));
  const bool accumulate = request.accumulate != 0;
  if (accumulate) RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(out), Soon()));
  local_->MatMul(out, x, own, accumulate);
  RETURN_IF_ERROR(local_->Synchronize());
  return SendBytes(socket, BytesOf(out), Soon());
}

Status WeightRank::ServeTable(const Socket& socket, const WeightRequest& request) {
  const Weight& own = *parts_->weights()[request.weight]->own();
  if (request.count == 0 || request.count > kWeightRowsMax) return NoRequest("so many rows");
  std::vector<uint32_t> ids(request.count);
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(ids)), Soon()));
  for (const uint32_t id : ids) {
    if (id >= own.rows()) return NoRequest("row " + std::to_string(id));
  }
  ASSIGN_OR_RETURN(const MatrixView out, Memory(&out_, request.count, own.cols()));
  local_->Embed(out, own, ids);
  RETURN_IF_ERROR(local_->Synchronize());
  return SendBytes(socket, BytesOf(out), Soon());
}

Result<uint32_t> WeightRank::InnerOf(const WeightRequest& request,
                                     std::span<const WeightExpert> experts) const {
  const auto weights = parts_->weights();
  const auto is_here = [&](uint32_t number) {
    return number < weights.size() && weights[number]->is_expert() &&
           weights[number]->own() != nullptr;
  };
  uint32_t inner = 0;
  for (const WeightExpert& e : experts) {
    if (e.expert >= request.width || !is_here(e.gate_up) || !is_here(e.down)) {
      return NoRequest("expert " + std::to_string(e.expert));
    }
    const Weight& gate_up = *weights[e.gate_up];
    const Weight& down = *weights[e.down];
    const bool fits = gate_up.cols() == request.cols && down.rows() == request.cols &&
                      gate_up.rows() == 2 * down.cols() && (inner == 0 || inner == down.cols());
    if (!fits) return NoRequest("another expert");
    inner = down.cols();
  }
  return inner;
}

Status WeightRank::ServeExperts(const Socket& socket, const WeightRequest& request) {
  const auto weights = parts_->weights();
  if (request.count == 0 || request.count > request.width || request.width > kWeightRowsMax ||
      request.rows == 0 || request.used == 0 || request.used > request.width) {
    return NoRequest("so many experts");
  }
  std::vector<WeightExpert> experts(request.count);
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(experts)), Soon()));
  ASSIGN_OR_RETURN(const uint32_t inner, InnerOf(request, experts));
  ExpertInput input;
  input.used = request.used;
  ASSIGN_OR_RETURN(input.x, Memory(&in_, request.rows, request.cols));
  ASSIGN_OR_RETURN(input.logits, Memory(&logits_, request.rows, request.width));
  ASSIGN_OR_RETURN(input.gathered, Memory(&gathered_, request.rows, request.cols));
  ASSIGN_OR_RETURN(input.result, Memory(&result_, request.rows, request.cols));
  ASSIGN_OR_RETURN(input.gate_up, Memory(&gate_up_, request.rows, uint64_t{2} * inner));
  ASSIGN_OR_RETURN(input.activated, Memory(&activated_, request.rows, inner));
  RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(input.x), Soon()));
  RETURN_IF_ERROR(ReceiveBytes(socket, BytesOf(input.logits), Soon()));
  const std::vector<ExpertRows> routed = RouteToExperts(input.logits, input.used);
  uint64_t rows = 0;
  for (const WeightExpert& e : experts) rows += routed[e.expert].rows.size();
  if (rows == 0) return OkStatus();
  // All of them before the first is sent: the other end has experts of its own to compute.
  ASSIGN_OR_RETURN(const MatrixView out, Memory(&out_, rows, request.cols));
  uint32_t first = 0;
  for (const WeightExpert& e : experts) {
    if (routed[e.expert].rows.empty()) continue;
    const MatrixView result =
        ApplyExpert(*parts_, input, *weights[e.gate_up], *weights[e.down], routed[e.expert]);
    local_->CopyMatrix(out.Rows(first, result.rows), result);
    first += result.rows;
  }
  RETURN_IF_ERROR(local_->Synchronize());
  return SendBytes(socket, BytesOf(out), Soon());
}

}  // namespace corpusd
