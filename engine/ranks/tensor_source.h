// engine/ranks/tensor_source.h -- a rank's part of a model's files as a ModelSource of its own:
// shape, rows and experts as TensorShare deals them. Of a mapped file no other byte is touched,
// unless the file's own order must be changed first. To be loaded over a TensorBackend. Immutable;
// any thread.
#pragma once

#include <memory>

#include "engine/model/model_source.h"
#include "engine/ranks/tensor_share.h"

namespace corpusd {

// source: of the whole model; must outlive it. Tokenizer and digests are the whole model's.
std::unique_ptr<ModelSource> MakeTensorSource(const ModelSource& source, const TensorShare& share);

}  // namespace corpusd
