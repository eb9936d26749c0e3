// engine/calibration/bundled_text.h -- the text that coordinates are calibrated on unless the user
// names another: law, letters, documentation, source code, logs, tables, some of it in other
// languages (engine/calibration/text.txt, frozen: a change of it gives new roots). Any thread.
#pragma once

#include <string_view>

namespace corpusd {

std::string_view BundledCalibrationText();

}  // namespace corpusd
