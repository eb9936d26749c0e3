# Throughput of the CPU kernels beside the machine's ceilings. Included by
# tests/bench/CMakeLists.txt.
corpusd_program(kernel_bench
  FILES ${CMAKE_SOURCE_DIR}/tests/bench/kernel_bench.cc
        ${CMAKE_SOURCE_DIR}/tests/bench/cpu_ceilings.cc
  DEPS corpusd_engine)
corpusd_program(tile_rates
  FILES ${CMAKE_SOURCE_DIR}/tests/bench/tile_rates.cc
  DEPS corpusd_kernels)
if(CORPUSD_TESTS)
  add_test(NAME tile_rates_smoke COMMAND tile_rates --smoke)
  set_tests_properties(tile_rates_smoke PROPERTIES LABELS fast TIMEOUT 60)
  add_test(NAME kernel_bench_smoke COMMAND kernel_bench --smoke)
  set_tests_properties(kernel_bench_smoke PROPERTIES LABELS fast TIMEOUT 120)
endif()
