# Model files as bytes: mapping, digest, GGUF. Included by engine/CMakeLists.txt.
corpusd_library(corpusd_model_files
  FILES ${CMAKE_CURRENT_LIST_DIR}/gguf.cc ${CMAKE_CURRENT_LIST_DIR}/gguf_parser.cc
        ${CMAKE_CURRENT_LIST_DIR}/mapped_file.cc ${CMAKE_CURRENT_LIST_DIR}/file_digest.cc
  DEPS corpusd_base corpusd_kernels)
