#include "engine/decode/sampling.h"

#include <cstdio>

#include "engine/decode/utf8_stream.h"

namespace corpusd {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// NaN is outside of every range.
Status CheckRange(std::string_view name, double value, double low, double high) {
  if (value >= low && value <= high) return OkStatus();
  return InvalidArgumentError(std::string(name) + " must be from " + Number(low) + " to " +
                              Number(high) + ", not " + Number(value));
}

Status CheckAbove0(std::string_view name, double value, double high) {
  if (value > 0 && value <= high) return OkStatus();
  return InvalidArgumentError(std::string(name) + " must be above 0 and at most " + Number(high) +
                              ", not " + Number(value));
}

Status CheckStops(const std::vector<std::string>& stops) {
  if (stops.size() > kStopStringsMax) {
    return InvalidArgumentError("stop must have at most " + std::to_string(kStopStringsMax) +
                                " strings, not " + std::to_string(stops.size()));
  }
  for (const std::string& stop : stops) {
    if (stop.empty() || stop.size() > kStopStringBytesMax) {
      return InvalidArgumentError("stop must have strings of 1 to " +
                                  std::to_string(kStopStringBytesMax) + " bytes, not of " +
                                  std::to_string(stop.size()));
    }
    if (Utf8Stream().Append(stop) != stop) return InvalidArgumentError("stop must be UTF-8");
  }
  return OkStatus();
}

}  // namespace

Status CheckAnswerOptions(const AnswerOptions& options) {
  const SamplingOptions& sampling = options.sampling;
  RETURN_IF_ERROR(CheckRange("temperature", sampling.temperature, 0, kTemperatureMax));
  RETURN_IF_ERROR(CheckAbove0("top_p", sampling.top_p, 1));
  RETURN_IF_ERROR(CheckRange("min_p", sampling.min_p, 0, 1));
  RETURN_IF_ERROR(
      CheckAbove0("repetition_penalty", sampling.repetition_penalty, kRepetitionPenaltyMax));
  RETURN_IF_ERROR(
      CheckRange("repetition_window", sampling.repetition_window, 0, kRepetitionWindowMax));
  RETURN_IF_ERROR(CheckRange("presence_penalty", sampling.presence_penalty, -kAdditivePenaltyMax,
                             kAdditivePenaltyMax));
  RETURN_IF_ERROR(CheckRange("frequency_penalty", sampling.frequency_penalty, -kAdditivePenaltyMax,
                             kAdditivePenaltyMax));
  RETURN_IF_ERROR(CheckRange("n", options.count, 1, kAnswersMax));
  RETURN_IF_ERROR(CheckRange("top_logprobs", options.top_logprobs.value_or(0), 0, kTopLogprobsMax));
  return CheckStops(options.stop);
}

}  // namespace corpusd
