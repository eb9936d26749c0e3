corpusd_program(corpus-bench
  FILES bench_ceiling.cc corpus_bench.cc
  DEPS corpusd_model_session)
