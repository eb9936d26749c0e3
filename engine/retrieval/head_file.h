// engine/retrieval/head_file.h -- the retrieval heads of a model, found once and kept beside its
// calibrations. Blocking, for tens of seconds if they are not there yet; any thread, one at a time
// for a folder.
#pragma once

#include <string>
#include <string_view>

#include "engine/retrieval/find_retrieval_heads.h"

namespace corpusd {

struct HeadFileOptions {
  std::string folder;          // "": nothing is kept
  std::string cache_folder;    // a second place that other data folders share; "": none
  std::string weights_digest;  // hex, of the model's file
};

// From the folder, from the cache folder, else FindRetrievalHeads in the text, then kept in both. A
// damaged file, or one of another shape, is made anew.
Result<RetrievalHeads> KeptRetrievalHeads(const HeadSearch& search, std::string_view text,
                                          const HeadFileOptions& options);

}  // namespace corpusd
