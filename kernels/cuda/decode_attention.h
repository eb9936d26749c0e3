// kernels/cuda/decode_attention.h -- attention of few query rows over many coded tiles that lie
// anywhere in device memory: one launch, split over the tiles, exact softmax by the log-sum-exp
// merge. No allocation, no synchronisation, no ownership: all memory is the caller's and must stay
// until the stream has passed the launch. Thread-safe for distinct workspaces.
//
// Method: split-KV decoding (Flash-Decoding, Dao et al. 2023) with tensor-core products on the raw
// codes; the scales go into scores and probabilities, the codes' offsets into the accumulators.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace corpusd::cuda {

inline constexpr int kMaxQueryRows = 16;

struct DecodeAttention {
  int bits = 0;      // of a code: 2, 3, 4, 8; K and V alike
  int head_dim = 0;  // 64, 128
  int kv_heads = 0;
  int query_rows = 0;  // of one KV head: its query heads x the questions, 1..kMaxQueryRows
  int tokens = 0;      // > 0; the last tile may be partly filled

  // Device pointers. blocks[i] is where tokens 128 i .. 128 i + 127 lie; the K tile of head h is at
  // blocks[i] + key_offset + h * tile_stride, the V tile at + value_offset. All multiples of 16;
  // multiples of 128 are fastest.
  const uint8_t* const* blocks = nullptr;
  uint64_t key_offset = 0, value_offset = 0, tile_stride = 0;
  // [kv_heads][query_rows][head_dim] float32, already times log2(e) / sqrt(head_dim) and the scale
  // that the head's keys share.
  const float* queries = nullptr;
  // [kv_heads][query_rows][head_dim]: softmax-weighted sum of the values (in units of their scale).
  float* outputs = nullptr;
  // [kv_heads][query_rows]: log2 of the sum of 2^score, to merge with other parts; may be null.
  float* log_sums = nullptr;
  // Zeroed once by the caller; every launch leaves its counters zero again.
  void* workspace = nullptr;
};

// RETURNS null if the request can be launched, else what is wrong with it.
const char* CheckDecodeAttention(const DecodeAttention& request);
// Bytes of workspace that serve any number of tokens on a device with so many multiprocessors.
size_t DecodeWorkspaceBytes(const DecodeAttention& request, int multiprocessors);
// Enqueues the kernel on the stream. REQUIRES: CheckDecodeAttention returned null. RETURNS a
// cudaError_t.
int LaunchDecodeAttention(const DecodeAttention& request, int multiprocessors, CUstream_st* stream);

}  // namespace corpusd::cuda
