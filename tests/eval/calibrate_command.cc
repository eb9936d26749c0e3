// corpus-eval calibrate: fits the coordinates of the cq formats to a text, or finds them fitted.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tests/eval/eval_command.h"

namespace corpusd {

Status CalibrateCommand(const EvalArguments& arguments) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(arguments.session));
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const KvCalibration* const calibration, session->Calibration());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (arguments.format == "json") {
    std::cout << nlohmann::json{{"digest", calibration->digest()},
                                {"folder", arguments.session.calibration_dir},
                                {"seconds", seconds},
                                {"backend", session->backend_name()}}
                     .dump()
              << "\n";
    return OkStatus();
  }
  std::printf("calibration %s in %s, %.1f s (%s)\n", calibration->digest().c_str(),
              arguments.session.calibration_dir.c_str(), seconds, session->backend_name().c_str());
  return OkStatus();
}

}  // namespace corpusd
