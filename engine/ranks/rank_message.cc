#include "engine/ranks/rank_message.h"

#include <algorithm>

namespace corpusd {

RankReply RankReply::Of(const Status& status) {
  RankReply reply;
  reply.code = static_cast<uint32_t>(status.code());
  if (status.ok()) return reply;
  const std::string_view text = std::string_view(status.message()).substr(0, reply.text.size());
  std::copy(text.begin(), text.end(), reply.text.begin());
  return reply;
}

Status RankReply::status() const {
  if (code == static_cast<uint32_t>(StatusCode::kOk)) return OkStatus();
  const auto end = std::find(text.begin(), text.end(), '\0');
  std::string words(text.begin(), end);
  const bool known =
      code <= UINT8_MAX && StatusCodeText(static_cast<StatusCode>(code)) != "unknown";
  return {known ? static_cast<StatusCode>(code) : StatusCode::kInternal, std::move(words)};
}

}  // namespace corpusd
