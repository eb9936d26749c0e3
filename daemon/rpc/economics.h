// daemon/rpc/economics.h -- what things cost here: the prices that the options name and the rates
// that this daemon measured, and what they make of a corpus (client/wire/corpus_cost.h). Any
// thread.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/services.h"

namespace corpusd {

v1::Economics EconomicsOf(const Services& services);
// corpus: the message of the record, but for its cost.
v1::CorpusCost CostOfCorpus(const Services& services, const v1::Corpus& corpus);

}  // namespace corpusd
