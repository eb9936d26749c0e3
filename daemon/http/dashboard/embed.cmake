# cmake -DFOLDER=... -DOUT=... -P embed.cmake: the dashboard's files as one C++ source, so that the
# daemon is one program without a folder of files.
set(text "// Made of the files in daemon/http/dashboard by embed.cmake.\n")
string(APPEND text "#include \"daemon/http/dashboard_handler.h\"\n\nnamespace corpusd {\n\n")
string(APPEND text "const std::vector<DashboardFile>& DashboardFiles() {\n")
string(APPEND text "  static const std::vector<DashboardFile> files = {\n")
foreach(name index.html dashboard.css dashboard.js metrics.js)
  file(READ ${FOLDER}/${name} hex HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" bytes "${hex}")
  # In pieces: compilers have limits on the length of a line.
  string(REGEX REPLACE "(................................................................)"
         "\\1\"\n      \"" bytes "${bytes}")
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  string(APPEND text "      {\"${name}\", std::string_view(\n      \"${bytes}\", ${size})},\n")
endforeach()
string(APPEND text "  };\n  return files;\n}\n\n}  // namespace corpusd\n")
file(WRITE ${OUT} "${text}")
