// tests/unit/engine/engine_fixture.h -- an Engine over a BlockStore in a temporary folder, with the
// tiny model. Reopening both is a restart. One thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "engine/engine.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace corpusd {

class EngineFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    model_.context_tokens = 4096;
    options_.model_path = folder_.File("tiny.gguf");
    options_.threads = 2;
    WriteTinyModel(options_.model_path, model_);
    store_options_.data_dir = folder_.File("data");
    Restart();
  }

  void Restart() {
    engine_.reset();
    store_.reset();
    auto store = BlockStore::Open(store_options_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(*store);
    auto engine = Engine::Create(options_, store_.get());
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = std::move(*engine);
  }

  std::unique_ptr<CorpusTokenizer> Tokens(const std::string& text, bool appending = false,
                                          uint64_t first_token = 0) {
    auto tokenizer = engine_->NewCorpusTokenizer("", appending, first_token);
    EXPECT_TRUE(tokenizer.ok());
    (*tokenizer)->BeginSource("text");
    (*tokenizer)->Append(text);
    (*tokenizer)->EndSource();
    return std::move(*tokenizer);
  }

  Result<CorpusRecord> Create(const std::string& name, const std::string& text,
                              const std::string& kv_format = "") {
    CorpusRequest request;
    request.name = name;
    request.kv_format = kv_format;
    return engine_->CreateCorpus(request, Tokens(text));
  }

  void Ingest(const std::string& name, const std::string& text, const std::string& format = "") {
    const auto record = Create(name, text, format);
    ASSERT_TRUE(record.ok()) << record.status().ToString();
    const Status status = engine_->Prefill(name, [](const PrefillProgress&) {}, {});
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

  Result<QuestionReport> Ask(const std::string& name, bool no_cache = false) {
    QuestionRequest request;
    request.corpus = name;
    request.question = "why?";
    request.max_tokens = 16;
    request.no_cache = no_cache;
    return engine_->Ask(request, [](std::string_view) { return true; }, {});
  }

  // All stored bytes of a corpus, in order.
  std::string BytesOf(const std::string& name) {
    FetchStats stats;
    std::string bytes;
    const auto refs = store_->Fetch(store_->GetCorpus(name)->chain, &stats);
    EXPECT_TRUE(refs.ok());
    for (const BlockRef& ref : *refs) {
      bytes.append(reinterpret_cast<const char*>(ref.bytes().data()), ref.bytes().size());
    }
    return bytes;
  }

  static std::string Prose(size_t words, int seed = 1) {
    std::string text;
    uint32_t state = static_cast<uint32_t>(seed);
    for (size_t i = 0; i < words; ++i) {
      state = state * 1664525 + 1013904223;
      text += "word" + std::to_string(state >> 20) + (i % 11 == 10 ? ".\n" : " ");
    }
    return text;
  }

  TempDir folder_;
  TinyModelOptions model_;  // changed before SetUp
  EngineOptions options_;
  BlockStoreOptions store_options_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace corpusd
