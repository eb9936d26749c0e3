// engine/backend/cuda/page_table.h -- the pages of an attention call as the kernels take them: a
// list on the device, kept from one layer to the next while it stays the same. Pages that lie in
// host memory the device cannot reach are copied there for the call, one layer of each. One thread
// at a time; all copies are in the order of the stream.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/cuda/cuda_pool.h"
#include "engine/backend/cuda/known_pages.h"
#include "engine/backend/cuda/launch_list.h"
#include "kernels/cuda/page.h"
#include "kernels/shapes.h"
#include "store/base/result.h"

struct CUstream_st;  // cudaStream_t

namespace corpusd {

cuda::PageCodec CodecOf(KvCodec codec);

class PageTable {
 public:
  PageTable(std::shared_ptr<CudaPool> device, std::shared_ptr<CudaPool> host, CUstream_st* stream)
      : device_(std::move(device)),
        host_(std::move(host)),
        stream_(stream),
        tables_(device_, stream) {}

  // Begins a call. REQUIRES: the stream has passed the calls before, or no page was copied in them.
  void Begin(uint32_t layer);
  // Adds the pages of one sequence; tokens before first_seen are hidden. Pages that are hidden as a
  // whole are not read, but keep their places; `seen_only`: they are left out. RETURNS how many
  // were added; they follow those added before.
  Result<uint32_t> Add(std::span<const KvPageList> lists, int64_t first_seen = 0,
                       bool seen_only = false);
  // Before AddPiece: the lists that pieces are of, which outlive the last one. steady: until the
  // step ends, no other pages come to where those of these lists lie.
  void BeginPieces(std::span<const KvPageList> lists, bool steady);
  // Adds pages [first, first + count) of all lists, those that begin up to last_position. Others
  // are not looked at. RETURNS how many.
  Result<uint32_t> AddPiece(uint64_t first, uint64_t count, uint64_t last_position);
  const cuda::DevicePage& page(size_t index) const { return pages_[index]; }
  size_t size() const { return pages_.size(); }
  // Where the first page of which something is seen begins; 0 if there is none.
  int64_t first_seen() const;
  // Bit i: there are pages of kind i (kernels/cuda/page_attention.h).
  uint32_t kinds() const { return kinds_; }
  // After an error: nothing of earlier calls is on the device.
  void Forget() {
    tables_.Forget();
    known_.Clear();
    divided_.clear();
  }
  // Begins a step, as ParameterSlots.
  void BeginStep();
  // Whether some page must be copied for this call.
  bool copies() const { return !host_pages_.empty(); }
  // RETURNS the list on the device.
  Result<const cuda::DevicePage*> Upload();

 private:
  // A long list of which pieces are added; bytes null: a page that was not looked at.
  struct Divided {
    KvFormat format;
    std::vector<KvPage> sources;
    std::vector<cuda::DevicePage> pages;
    std::vector<const KvPage*> seen_in_step;  // where such lists lay
  };
  // Where the page would begin if all layers were as large as this call's: kernels add as many
  // times that as there are layers before it.
  const uint8_t* BytesOf(const KvFormat& format, const KvPage& source) const;
  cuda::DevicePage PageOf(const KvFormat& format, const KvPage& source) const;
  Divided* Divide(const KvPageList& list, bool steady);
  Status AddList(const KvPageList& list, int64_t first_seen, bool seen_only);
  // Whether kernels read the page where it lies.
  Result<bool> Reachable(const std::byte* bytes) const;
  Status CopyHostPages();
  Status Await(const CudaBuffer* piece) const;

  const std::shared_ptr<CudaPool> device_, host_;
  CUstream_st* const stream_;
  uint32_t layer_ = 0, kinds_ = 0;
  std::vector<cuda::DevicePage> pages_;
  struct HostPage {
    size_t index;
    const std::byte* layer;
  };
  std::vector<HostPage> host_pages_;
  KnownPages known_;            // lists of which no page is hidden or the host's
  std::list<Divided> divided_;  // the last ones, the last first
  struct WholeList {
    KvPageList list;
    Divided* divided = nullptr;  // null: it is short
  };
  std::vector<WholeList> wholes_;       // of AddPiece
  std::unique_ptr<CudaBuffer> staged_;  // on the device
  ParameterSlots tables_;
};

}  // namespace corpusd
