// client/ctl/cost_text.h -- what a corpus costs, for people: fields of `show` and `plan`. Pure; any
// thread.
#pragma once

#include "client/ctl/table_printer.h"
#include "corpusd/v1/corpusd.pb.h"

namespace corpusd::ctl {

// What is not known is left out, and prices where there are none.
void AddCostFields(const v1::CorpusCost& cost, Fields* fields);

}  // namespace corpusd::ctl
