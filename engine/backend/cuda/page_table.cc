#include "engine/backend/cuda/page_table.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "engine/backend/cuda/cuda_error.h"
#include "kernels/cuda/page_attention.h"

namespace corpusd {

namespace {

// Divided lists: of as many questions as decode together.
constexpr size_t kDividedMax = 20;

// What is kept of a list serves all layers, so they must be alike.
bool IsKept(const KvPageList& list) {
  return list.pages.size() >= KnownPages::kLongList && list.format->layer_codecs.empty();
}

}  // namespace

cuda::PageCodec CodecOf(KvCodec codec) {
  switch (codec) {
    case KvCodec::kBf16:
      return cuda::PageCodec::kBf16;
    case KvCodec::kInt8:
      return cuda::PageCodec::kInt8;
    default:
      return static_cast<cuda::PageCodec>(CodeBits(codec));
  }
}

void PageTable::Begin(uint32_t layer) {
  layer_ = layer;
  kinds_ = 0;
  pages_.clear();
  host_pages_.clear();
}

void PageTable::BeginStep() {
  tables_.Begin();
  known_.BeginStep();
  for (Divided& divided : divided_) divided.seen_in_step.clear();
}

Result<bool> PageTable::Reachable(const std::byte* bytes) const {
  if (device_->Holds(bytes) || host_->Holds(bytes)) return true;
  cudaPointerAttributes attributes{};
  RETURN_IF_ERROR(CudaStatus(cudaPointerGetAttributes(&attributes, bytes), "look at a page"));
  // Host memory that a store has pinned may be unpinned while a kernel reads it.
  return attributes.type == cudaMemoryTypeDevice;
}

const uint8_t* PageTable::BytesOf(const KvFormat& format, const KvPage& source) const {
  const uint64_t before = uint64_t{layer_} * format.LayerBytes(layer_);
  return reinterpret_cast<const uint8_t*>(reinterpret_cast<uintptr_t>(source.bytes) +
                                          format.LayerOffset(layer_) - before);
}

cuda::DevicePage PageTable::PageOf(const KvFormat& format, const KvPage& source) const {
  cuda::DevicePage page;
  page.bytes = BytesOf(format, source);
  page.layer_bytes = static_cast<uint32_t>(format.LayerBytes(layer_));
  page.key_tile_bytes = static_cast<uint32_t>(format.KeyTileBytes(layer_));
  page.value_tile_bytes = static_cast<uint32_t>(format.ValueTileBytes(layer_));
  const LayerCodecs codecs = format.CodecsOf(layer_);
  page.key_codec = CodecOf(codecs.key);
  page.value_codec = CodecOf(codecs.value);
  page.first_position = static_cast<int64_t>(source.first_position);
  page.tokens = static_cast<uint16_t>(source.tokens);
  page.hidden = static_cast<uint16_t>(source.hidden);
  return page;
}

PageTable::Divided* PageTable::Divide(const KvPageList& list, bool steady) {
  static_assert(std::has_unique_object_representations_v<KvPage>);
  // Ends say nothing: where they are another rank's, those of all texts look alike.
  const KvPage* const where = list.pages.data();
  const auto found = std::ranges::find_if(divided_, [&](const Divided& divided) {
    if (!(divided.format == *list.format) || divided.sources.size() != list.pages.size()) {
      return false;
    }
    const auto& seen = divided.seen_in_step;
    if (steady && std::ranges::find(seen, where) != seen.end()) return true;
    return std::memcmp(divided.sources.data(), where, list.pages.size_bytes()) == 0;
  });
  if (found != divided_.end()) {
    divided_.splice(divided_.begin(), divided_, found);
  } else {
    if (divided_.size() == kDividedMax) divided_.pop_back();
    Divided& added = divided_.emplace_front();
    added.format = *list.format;
    added.sources.assign(list.pages.begin(), list.pages.end());
    for (const KvPage& source : list.pages) {
      added.pages.push_back(PageOf(added.format, source));
      added.pages.back().bytes = nullptr;
    }
  }
  Divided& divided = divided_.front();
  if (steady && std::ranges::find(divided.seen_in_step, where) == divided.seen_in_step.end()) {
    divided.seen_in_step.push_back(where);
  }
  return &divided;
}

void PageTable::BeginPieces(std::span<const KvPageList> lists, bool steady) {
  wholes_.clear();
  for (const KvPageList& list : lists) {
    const bool is_long = IsKept(list);
    wholes_.push_back({list, is_long ? Divide(list, steady) : nullptr});
  }
}

Result<uint32_t> PageTable::AddPiece(uint64_t first, uint64_t count, uint64_t last_position) {
  const size_t before = pages_.size();
  for (const auto& [list, divided] : wholes_) {
    const uint64_t skipped = std::min<uint64_t>(first, list.pages.size());
    first -= skipped;
    const uint64_t end = std::min<uint64_t>(skipped + count, list.pages.size());
    count -= end - skipped;
    for (uint64_t i = skipped; i < end; ++i) {
      const KvPage& source = list.pages[i];
      if (source.first_position > last_position) break;
      if (divided != nullptr && divided->pages[i].bytes != nullptr) {
        pages_.push_back(divided->pages[i]);
        continue;
      }
      pages_.push_back(PageOf(*list.format, source));
      if (source.hidden >= source.tokens) {  // no byte is read; it may not be there
        pages_.back().bytes = nullptr;
        continue;
      }
      ASSIGN_OR_RETURN(const bool reachable, Reachable(source.bytes));
      if (!reachable) {
        host_pages_.push_back({pages_.size() - 1, source.bytes + list.format->LayerOffset(layer_)});
      } else if (divided != nullptr) {
        divided->pages[i].bytes = pages_.back().bytes;
      }
    }
    if (pages_.size() > before && end > skipped) {
      const cuda::DevicePage& page = pages_.back();
      kinds_ |= 1u << cuda::PageKindOf(page.key_codec, page.value_codec);
    }
    if (count == 0) break;
  }
  return static_cast<uint32_t>(pages_.size() - before);
}

Status PageTable::AddList(const KvPageList& list, int64_t first_seen, bool seen_only) {
  const KvFormat& format = *list.format;
  cuda::DevicePage page = PageOf(format, KvPage());
  if (!list.pages.empty()) kinds_ |= 1u << cuda::PageKindOf(page.key_codec, page.value_codec);
  const bool is_kept = IsKept(list);
  const size_t first = pages_.size(), first_host = host_pages_.size();
  bool all_seen = true;
  std::span<const cuda::DevicePage> known;
  if (is_kept) known = known_.Find(list, first_seen);
  const size_t old = known.size();
  pages_.insert(pages_.end(), known.begin(), known.end());
  for (const KvPage& source : list.pages.subspan(old)) {
    page.bytes = BytesOf(format, source);
    page.first_position = static_cast<int64_t>(source.first_position);
    page.tokens = static_cast<uint16_t>(source.tokens);
    page.hidden = static_cast<uint16_t>(std::max<int64_t>(
        source.hidden, std::min(first_seen - page.first_position, int64_t{source.tokens})));
    // Of a page that is hidden no byte is read; it may not be there.
    const bool seen = page.hidden < page.tokens;
    all_seen = all_seen && seen;
    if (!seen && seen_only) continue;
    if (!seen) page.bytes = nullptr;
    ASSIGN_OR_RETURN(const bool reachable, seen ? Reachable(source.bytes) : Result<bool>(true));
    if (!reachable) {
      host_pages_.push_back({pages_.size(), source.bytes + format.LayerOffset(layer_)});
    }
    pages_.push_back(page);
  }
  if (is_kept && all_seen && host_pages_.size() == first_host) {
    known_.Keep(list, first_seen, std::span(pages_).subspan(first));
  }
  return OkStatus();
}

Result<uint32_t> PageTable::Add(std::span<const KvPageList> lists, int64_t first_seen,
                                bool seen_only) {
  const size_t first = pages_.size();
  for (const KvPageList& list : lists) RETURN_IF_ERROR(AddList(list, first_seen, seen_only));
  return static_cast<uint32_t>(pages_.size() - first);
}

int64_t PageTable::first_seen() const {
  int64_t first = INT64_MAX;
  for (const cuda::DevicePage& page : pages_) {
    if (page.hidden < page.tokens) first = std::min(first, page.first_position);
  }
  return first == INT64_MAX ? 0 : first;
}

// A piece that is given back may get an owner that does not wait for the stream.
Status PageTable::Await(const CudaBuffer* piece) const {
  if (piece == nullptr) return OkStatus();
  return CudaStatus(cudaStreamSynchronize(stream_), "wait for the device");
}

// Layer layer_ of every page of the host, one behind the other.
Status PageTable::CopyHostPages() {
  uint64_t bytes = 0;
  for (const HostPage& page : host_pages_) bytes += pages_[page.index].layer_bytes;
  if (staged_ == nullptr || staged_->bytes() < bytes) {
    RETURN_IF_ERROR(Await(staged_.get()));
    staged_.reset();
    ASSIGN_OR_RETURN(staged_, CudaBuffer::Create(device_, bytes + bytes / 4, "pages of the host"));
  }
  std::byte* to = staged_->data();
  for (const HostPage& source : host_pages_) {
    cuda::DevicePage& page = pages_[source.index];
    RETURN_IF_ERROR(CopyInFrames(to, source.layer, page.layer_bytes, stream_));
    // Kernels add the layer's offset to a page's address.
    page.bytes = reinterpret_cast<const uint8_t*>(reinterpret_cast<uintptr_t>(to) -
                                                  uintptr_t{layer_} * page.layer_bytes);
    to += page.layer_bytes;
  }
  return OkStatus();
}

Result<const cuda::DevicePage*> PageTable::Upload() {
  if (!host_pages_.empty()) RETURN_IF_ERROR(CopyHostPages());
  ASSIGN_OR_RETURN(const std::byte* const table,
                   tables_.Put(pages_.data(), pages_.size() * sizeof(cuda::DevicePage)));
  return reinterpret_cast<const cuda::DevicePage*>(table);
}

}  // namespace corpusd
