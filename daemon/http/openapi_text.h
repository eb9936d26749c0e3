// daemon/http/openapi_text.h -- the OpenAPI document of the HTTP interface, openapi.json, as it was
// when the daemon was built. Any thread.
#pragma once

#include <string_view>

namespace corpusd {

std::string_view OpenApiText();

}  // namespace corpusd
