// engine/kv/layer_parts.h -- how the layers of a model are kept apart: part 0 holds those that see
// everything, and each other part the layers of one span, chunk or window, which are kept only
// where something can still see them. Plain data; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kv_format.h"

namespace corpusd {

struct LayerPart {
  std::string kind;          // "all", "c8192", "w512"; part of digests
  bool window = false;       // else a chunk
  uint32_t span_tokens = 0;  // 0: of part 0
  uint32_t layers = 0;       // of part 0 maybe none
};

struct LayerPlace {
  uint32_t part = 0;
  uint32_t index = 0;  // among the layers of that part
};

struct LayerParts {
  std::vector<LayerPart> parts;    // the first sees everything
  std::vector<LayerPlace> places;  // of each layer
};

// A part's share of a format that says all layers.
inline KvFormat PartFormat(KvFormat format, const LayerParts& parts, size_t part) {
  format.layers = parts.parts[part].layers;
  std::vector<LayerCodecs> codecs;
  for (size_t layer = 0; layer < format.layer_codecs.size(); ++layer) {
    if (parts.places[layer].part == part) codecs.push_back(format.layer_codecs[layer]);
  }
  format.SetLayerCodecs(std::move(codecs));
  return format;
}

// A block of no layers is stored as one section of zeros.
inline uint64_t StoredBytes(const KvFormat& format) {
  return format.layers == 0 ? kTileAlignment : format.BlockBytes();
}
inline uint32_t StoredSections(const KvFormat& format) {
  return format.layers == 0 ? 1 : format.layers;
}

}  // namespace corpusd
