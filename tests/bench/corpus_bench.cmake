corpusd_program(corpus-bench
  FILES bench_command.cc corpus_bench.cc cpu_ceilings.cc model_bench.cc
  DEPS corpusd_model_session corpusd_test_support)
if(CORPUSD_TESTS)
  add_test(NAME corpus_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> prefill --smoke --model smoke.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(corpus_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
endif()
