// engine/model/named_source.h -- a source whose matrices have the graph's names, such as
// "blk.3.attn_q.weight", of an expert with its number behind it, whatever they are called in its
// files: for backends that treat weights by what they are. Immutable; any thread.
#pragma once

#include <memory>

#include "engine/model/model_source.h"

namespace corpusd {

// source must outlive it.
std::unique_ptr<ModelSource> MakeNamedSource(const ModelSource& source);

}  // namespace corpusd
