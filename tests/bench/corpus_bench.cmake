corpusd_program(corpus-bench
  FILES bench_command.cc corpus_bench.cc cpu_ceilings.cc model_bench.cc replay_bench.cc
        replay_cache.cc replay_trace.cc
        chain_bench.cc disk_tier_bench.cc host_tier_bench.cc index_scan_bench.cc raw_disk.cc
        rocks_layouts.cc store_layouts.cc
  DEPS corpusd_model_session corpusd_test_support)
if(CORPUSD_TESTS)
  add_test(NAME corpus_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> prefill --smoke --model smoke.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  foreach(bench disk-tier host-tier chain index-scan)
    add_test(NAME ${bench}_bench_smoke COMMAND corpus-bench ${bench} --smoke -o json)
    set_tests_properties(${bench}_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  endforeach()
  set_tests_properties(corpus_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  add_test(NAME corpus_bench_replay_smoke
           COMMAND sh -c "$<TARGET_FILE:corpus-bench> replay --smoke -o json")
  set_tests_properties(corpus_bench_replay_smoke PROPERTIES LABELS fast TIMEOUT 60)
endif()
