# Encoding speed beside a byte scan of the same text. Included by tests/bench/CMakeLists.txt.
corpusd_program(tokenizer_bench
  FILES ${CMAKE_SOURCE_DIR}/tests/bench/tokenizer_bench.cc
  DEPS corpusd_tokenizer corpusd_test_support)
if(CORPUSD_TESTS)
  add_test(NAME tokenizer_bench_smoke COMMAND tokenizer_bench --smoke)
  set_tests_properties(tokenizer_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
endif()
