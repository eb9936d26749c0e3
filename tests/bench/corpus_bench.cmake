corpusd_program(corpus-bench
  FILES bench_command.cc corpus_bench.cc cpu_ceilings.cc model_bench.cc replay_bench.cc
        replay_cache.cc replay_trace.cc
        chain_bench.cc disk_tier_bench.cc follow_up_bench.cc
        growth_bench.cc host_tier_bench.cc index_scan_bench.cc
        model_plan.cc plan_bench.cc random_model.cc raw_disk.cc rocks_layouts.cc scout_bench.cc
        segmented_bench.cc step_bench.cc store_layouts.cc
  DEPS corpusd_model_session corpusd_recall corpusd_test_support)
if(CORPUSD_TESTS)
  add_test(NAME corpus_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> prefill --smoke --model smoke.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  add_test(NAME step_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke-step.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> step --smoke --kv-format bf16 --model smoke-step.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(step_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  add_test(NAME follow_up_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke-follow-up.gguf --context 8192 && \
$<TARGET_FILE:corpus-bench> follow-up --smoke --kv-format bf16 --model smoke-follow-up.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(follow_up_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  add_test(NAME segmented_bench_smoke
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> smoke-segmented.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> segmented --smoke --model smoke-segmented.gguf -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(segmented_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  add_test(NAME growth_bench_smoke
           COMMAND corpus-bench growth --smoke -o json
                   --model ${CMAKE_SOURCE_DIR}/tests/eval/needle)
  set_tests_properties(growth_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  # To a million tokens; the headers of the C and C++ libraries are text enough.
  add_test(NAME segmented_bench_flat
           COMMAND sh -c "$<TARGET_FILE:make_tiny_model> flat.gguf --context 2048 && \
$<TARGET_FILE:corpus-bench> segmented --model flat.gguf --text /usr/include --kv-format bf16 \
--tokens 10000,100000,1000000 --flat-within 1.5 -o json"
           WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(segmented_bench_flat PROPERTIES LABELS slow TIMEOUT 1200)
  add_test(NAME plan_bench_smoke
           COMMAND corpus-bench plan --smoke -o json
                   --config ${CMAKE_SOURCE_DIR}/tests/golden/llama4_scout.json)
  set_tests_properties(plan_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  foreach(bench disk-tier host-tier chain index-scan scout)
    add_test(NAME ${bench}_bench_smoke COMMAND corpus-bench ${bench} --smoke -o json)
    set_tests_properties(${bench}_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  endforeach()
  set_tests_properties(corpus_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
  add_test(NAME corpus_bench_replay_smoke
           COMMAND sh -c "$<TARGET_FILE:corpus-bench> replay --smoke -o json")
  set_tests_properties(corpus_bench_replay_smoke PROPERTIES LABELS fast TIMEOUT 60)
endif()
