#include "client/token_stream.h"

namespace corpusd {

TokenStream::~TokenStream() {
  if (open_) client_->SendCancel(call_.id);
}

ClientResult<std::optional<std::string>> TokenStream::Next() {
  if (!open_) return std::optional<std::string>();
  auto response = client_->Next(call_);
  if (!response.ok()) {
    open_ = false;
    return response.error();
  }
  if (response->has_ask_delta()) {
    delta_ = std::move(*response->mutable_ask_delta());
    return std::optional<std::string>(delta_.text());
  }
  open_ = false;
  if (!response->has_ask()) {
    return ClientError{kClientProtocol, "protocol",
                       "corpusd answered 'ask' with something else; are the versions equal?"};
  }
  reply_ = std::move(*response->mutable_ask());
  return std::optional<std::string>();
}

void TokenStream::Cancel() {
  if (open_) client_->SendCancel(call_.id);
}

}  // namespace corpusd
