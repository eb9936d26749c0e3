// daemon/metrics/label_values.h -- the words that metrics are labelled with, and how tokens are
// shared out among tiers. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "store/base/status.h"
#include "store/block_ref.h"

namespace corpusd {

// In the order of TierKind.
inline constexpr std::array<std::string_view, 3> kTierLabels = {"device", "host", "disk"};
inline std::string_view TierLabel(TierKind tier) { return kTierLabels[static_cast<size_t>(tier)]; }

// Every code that a request can fail with.
inline constexpr std::array kCountedErrors = {
    StatusCode::kNotFound,          StatusCode::kAlreadyExists,
    StatusCode::kInvalidArgument,   StatusCode::kFailedPrecondition,
    StatusCode::kResourceExhausted, StatusCode::kAborted,
    StatusCode::kCorruption,        StatusCode::kIoError,
    StatusCode::kDeviceError,       StatusCode::kUnavailable,
    StatusCode::kCancelled,         StatusCode::kDeadlineExceeded,
    StatusCode::kUnimplemented,     StatusCode::kInternal,
    StatusCode::kPermissionDenied,  StatusCode::kNotReady};

// Tokens by tier in proportion to the bytes read from each, which is exact but for the last block
// of a chain, since all others have as many tokens and bytes. The sum is `tokens`: what rounding
// leaves goes to the tier of most bytes, the host's if none was read (the blocks were at hand).
std::array<uint64_t, kTierLabels.size()> ShareByBytes(
    uint64_t tokens, const std::array<uint64_t, kTierLabels.size()>& bytes);

}  // namespace corpusd
