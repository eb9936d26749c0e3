# What a package holds, and CPack: `cmake --build build/release --target package` writes a .deb for
# the distribution that it runs on. The relocatable tarball is deploy/bundle.
include(GNUInstallDirs)
install(TARGETS corpusd corpusctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)

find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(man_dir ${CMAKE_BINARY_DIR}/man)
set(man_pages ${man_dir}/corpusctl.1 ${man_dir}/corpusd.8 ${man_dir}/corpusd.toml.5)
add_custom_command(OUTPUT ${man_pages}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/make_man ${CMAKE_BINARY_DIR}/bin
          ${man_dir}
  DEPENDS corpusd corpusctl ${CMAKE_CURRENT_LIST_DIR}/make_man)
set(completions)
foreach(shell bash zsh fish)
  add_custom_command(OUTPUT ${man_dir}/completion.${shell}
    COMMAND ${CMAKE_BINARY_DIR}/bin/corpusctl completion ${shell} > ${man_dir}/completion.${shell}
    DEPENDS corpusctl ${man_pages})
  list(APPEND completions ${man_dir}/completion.${shell})
endforeach()
add_custom_target(corpusd_man ALL DEPENDS ${man_pages} ${completions})

install(FILES ${man_dir}/corpusctl.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime)
install(FILES ${man_dir}/corpusd.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8 COMPONENT runtime)
install(FILES ${man_dir}/corpusd.toml.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5 COMPONENT runtime)
install(FILES ${man_dir}/completion.bash RENAME corpusctl COMPONENT runtime
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${man_dir}/completion.zsh RENAME _corpusctl COMPONENT runtime
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${man_dir}/completion.fish RENAME corpusctl.fish COMPONENT runtime
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES deploy/systemd/corpusd.service deploy/systemd/corpusd.socket
              deploy/systemd/corpusd-http.socket
        DESTINATION lib/systemd/system COMPONENT runtime)
install(FILES deploy/systemd/corpusd.sysusers RENAME corpusd.conf
        DESTINATION lib/sysusers.d COMPONENT runtime)
install(FILES deploy/corpusd.toml DESTINATION /etc/corpusd COMPONENT runtime)
install(FILES deploy/debian/corpusd.logrotate RENAME corpusd
        DESTINATION /etc/logrotate.d COMPONENT runtime)
install(PROGRAMS deploy/fetch_model
        DESTINATION ${CMAKE_INSTALL_DATADIR}/corpusd COMPONENT runtime)
install(FILES deploy/grafana/corpusd.json DESTINATION ${CMAKE_INSTALL_DATADIR}/corpusd/grafana
        COMPONENT runtime)
install(FILES deploy/prometheus/corpusd.rules.yml
        DESTINATION ${CMAKE_INSTALL_DATADIR}/corpusd/prometheus COMPONENT runtime)
install(FILES LICENSE RENAME copyright DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/corpusd
        COMPONENT runtime)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME corpusd)
set(CPACK_PACKAGE_VENDOR "corpusd")
set(CPACK_PACKAGE_CONTACT "corpusd maintainers <corpusd@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "keeps prefilled corpora and answers follow-up questions")
set(CPACK_PACKAGE_DESCRIPTION
"A daemon that reads a corpus once with a language model, keeps the keys and values of
 every layer in memory and on disk, and answers questions about it from there.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "systemd")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "logrotate, prometheus, python3-pip")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_LIST_DIR}/debian/conffiles ${CMAKE_CURRENT_LIST_DIR}/debian/postinst
    ${CMAKE_CURRENT_LIST_DIR}/debian/prerm ${CMAKE_CURRENT_LIST_DIR}/debian/postrm)
include(CPack)
