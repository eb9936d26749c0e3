#include "daemon/rpc/status_mapping.h"

#include <string>

#include "client/wire/utf8.h"

namespace corpusd {

v1::Error ToError(const Status& status) {
  v1::Error error;
  error.set_code(static_cast<uint32_t>(status.code()));
  error.set_code_text(std::string(StatusCodeText(status.code())));
  error.set_message(ToUtf8(status.message()));
  return error;
}

v1::Response ErrorResponse(uint64_t id, const Status& status) {
  v1::Response response;
  response.set_id(id);
  response.set_end_of_stream(true);
  *response.mutable_error() = ToError(status);
  return response;
}

}  // namespace corpusd
