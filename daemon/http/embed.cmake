# Turns TEXT into OUTPUT, a C++ file with the text as bytes: the daemon serves it without a file
# beside the program.
file(READ ${TEXT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUTPUT} "#include \"daemon/http/openapi_text.h\"\n
namespace corpusd {
namespace {
constexpr unsigned char kText[] = {${bytes}};
}  // namespace
std::string_view OpenApiText() {
  return {reinterpret_cast<const char*>(kText), sizeof(kText)};
}
}  // namespace corpusd
")
