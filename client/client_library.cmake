# corpusd_wire (frames, both ends) and corpusd_client, installed as the CMake package
# corpusd::client.
corpusd_library(corpusd_wire
  FILES ${CMAKE_CURRENT_LIST_DIR}/wire/frame_codec.cc ${CMAKE_CURRENT_LIST_DIR}/wire/utf8.cc
  SYSTEM_DEPS protobuf::libprotobuf)
find_package(nlohmann_json REQUIRED)
corpusd_library(corpusd_object_json  # not installed: the package needs no JSON library
  FILES ${CMAKE_CURRENT_LIST_DIR}/wire/corpus_cost.cc ${CMAKE_CURRENT_LIST_DIR}/wire/object_json.cc
  DEPS corpusd_proto SYSTEM_DEPS nlohmann_json::nlohmann_json)
corpusd_library(corpusd_client
  FILES ${CMAKE_CURRENT_LIST_DIR}/unix_channel.cc ${CMAKE_CURRENT_LIST_DIR}/corpus_client.cc
        ${CMAKE_CURRENT_LIST_DIR}/corpus_bundle.cc
        ${CMAKE_CURRENT_LIST_DIR}/token_stream.cc
  DEPS corpusd_wire corpusd_proto)

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(client_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/corpusd)
foreach(library corpusd_wire corpusd_client corpusd_proto corpusd_options)
  string(REPLACE corpusd_ "" exported ${library})
  set_target_properties(${library} PROPERTIES EXPORT_NAME ${exported})
  # Paths of this tree mean nothing to whoever installs the package.
  foreach(property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES)
    get_target_property(folders ${library} ${property})
    if(folders)
      set_target_properties(${library} PROPERTIES ${property} "$<BUILD_INTERFACE:${folders}>")
    endif()
  endforeach()
endforeach()
# Private warning flags travel as an empty link-only target.
install(TARGETS corpusd_wire corpusd_client corpusd_proto corpusd_options
        EXPORT corpusd_client_targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/corpusd)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/client_error.h ${CMAKE_CURRENT_LIST_DIR}/corpus_client.h
              ${CMAKE_CURRENT_LIST_DIR}/token_stream.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/corpusd/client COMPONENT client)
install(FILES ${proto_headers}
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/corpusd/corpusd/v1 COMPONENT client)
install(FILES ${proto_files}
        DESTINATION ${CMAKE_INSTALL_DATADIR}/corpusd/proto/corpusd/v1 COMPONENT client)
install(EXPORT corpusd_client_targets FILE corpusd-targets.cmake NAMESPACE corpusd::
        DESTINATION ${client_package_dir} COMPONENT client)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/cmake/corpusd-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/corpusd-config.cmake INSTALL_DESTINATION ${client_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/corpusd-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/corpusd-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/corpusd-config-version.cmake
        DESTINATION ${client_package_dir} COMPONENT client)
