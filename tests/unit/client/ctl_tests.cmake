# corpusctl's parts, and its verbs against a scripted daemon.
set(ctl_tests ${CMAKE_CURRENT_LIST_DIR})
corpusd_test(corpusd_ctl_test
  FILES ${ctl_tests}/ctl_cli_test.cc ${ctl_tests}/ctl_command_test.cc
        ${ctl_tests}/ctl_completion_test.cc ${ctl_tests}/ctl_exit_code_test.cc
        ${ctl_tests}/ctl_format_test.cc
        ${ctl_tests}/ctl_ingest_test.cc ${ctl_tests}/ctl_evict_test.cc
        ${ctl_tests}/ctl_retention_test.cc
        ${ctl_tests}/ctl_scripted_daemon.cc
  DEPS corpusd_ctl)
target_sources(corpusd_ctl_test PRIVATE
  ${ctl_tests}/ctl_cost_test.cc ${ctl_tests}/ctl_integrity_test.cc ${ctl_tests}/ctl_token_test.cc
  ${ctl_tests}/ctl_plan_test.cc ${ctl_tests}/ctl_stats_test.cc)
