# Model files as bytes: mapping, digest, GGUF, safetensors, JSON. Included by engine/CMakeLists.txt.
corpusd_library(corpusd_model_files
  FILES ${CMAKE_CURRENT_LIST_DIR}/gguf.cc ${CMAKE_CURRENT_LIST_DIR}/gguf_parser.cc
        ${CMAKE_CURRENT_LIST_DIR}/mapped_file.cc ${CMAKE_CURRENT_LIST_DIR}/file_digest.cc
        ${CMAKE_CURRENT_LIST_DIR}/safetensors.cc ${CMAKE_CURRENT_LIST_DIR}/checkpoint_folder.cc
        ${CMAKE_CURRENT_LIST_DIR}/json_text.cc ${CMAKE_CURRENT_LIST_DIR}/config_reader.cc
  DEPS corpusd_base corpusd_kernels)
