// Counting and the systems, over an engine that answers from the text; the real engine and
// Micro-RAG on the tiny model.
#include "tests/eval/long_recall.h"

#include <gtest/gtest.h>

#include <map>

#include "store/corpus_chain.h"
#include "tests/eval/long_recall_report.h"
#include "tests/eval/micro_rag.h"
#include "tests/support/fake_block_store.h"
#include "tests/support/fake_engine.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

constexpr uint32_t kBlockTokens = 8;  // of FakeEngine

TokenCoder ByteCoder() {
  static const std::string kAll = [] {
    std::string bytes;
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    return bytes;
  }();
  return {[](std::string_view text) {
            std::vector<TokenId> ids;
            for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
            return ids;
          },
          [](TokenId id) { return std::string_view(kAll).substr(id, 1); }};
}

// Keeps the tokens, too.
class TokenStore final : public FakeBlockStore {
 public:
  TokenStore() : FakeBlockStore(std::make_shared<FakeDisk>()) {}
  Result<CorpusRecord> CreateCorpus(CorpusRecord record, std::span<const TokenId> tokens) override {
    tokens_[record.name] = {tokens.begin(), tokens.end()};
    return FakeBlockStore::CreateCorpus(std::move(record), tokens);
  }
  Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const override {
    return tokens_.at(std::string(name));
  }

 private:
  std::map<std::string, std::vector<TokenId>> tokens_;
};

// Answers with the line that shares most words with the question; lists the blocks of that line
// behind `decoys` others; cites the line's document. A preamble of eight tokens stands before.
class ReadingEngine final : public FakeEngine {
 public:
  ReadingEngine(BlockStore& store, FakeEngineControls& controls)
      : FakeEngine(store, controls), store_(store) {}
  size_t decoys = 0;
  bool wrong_citation = false;
  std::vector<QuestionRequest> asked;
  std::vector<CorpusRequest> created;

  Result<std::unique_ptr<CorpusTokenizer>> NewCorpusTokenizer(std::string_view preamble,
                                                              bool appending,
                                                              uint64_t /*first_token*/) override {
    return FakeEngine::NewCorpusTokenizer(preamble, appending, kBlockTokens);
  }

  Result<CorpusRecord> CreateCorpus(const CorpusRequest& request,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override {
    created.push_back(request);
    CorpusRecord record;
    record.name = request.name;
    record.mode = request.mode;
    record.kv_format = request.kv_format;
    record.state = CorpusState::kReady;
    if (request.mode == "segmented") record.segments = {10 * kBlockTokens, kBlockTokens};
    std::vector<TokenId> tokens(kBlockTokens, ' ');
    const std::vector<TokenId> own = tokenizer->TakeTokens();
    tokens.insert(tokens.end(), own.begin(), own.end());
    record.tokens = tokens.size();
    if (request.mode == "exact" && record.tokens > 4000) return InvalidArgumentError("too long");
    record.sources = tokenizer->TakeSources();
    return store_.CreateCorpus(record, tokens);
  }

  Result<QuestionReport> Ask(const QuestionRequest& request, const AnswerSink& /*sink*/,
                             std::stop_token /*stop*/) override {
    asked.push_back(request);
    ASSIGN_OR_RETURN(const CorpusRecord record, store_.GetCorpus(request.corpus));
    ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, store_.CorpusTokens(request.corpus));
    const std::string text = ByteCoder().Decode(tokens);
    std::vector<std::string> lines;
    std::vector<size_t> starts;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
      starts.push_back(at);
      lines.push_back(text.substr(at, text.find('\n', at) - at));
    }
    const size_t line = Bm25Index(lines).Search(request.question, 1).at(0);
    QuestionReport report;
    report.answer = lines[line];
    report.prompt_tokens = record.tokens + 50;
    report.cached_tokens = record.tokens;
    report.attended_tokens = 300;
    report.host_bytes = 1000;
    report.disk_bytes = 24;
    report.first_token_ms = 5;
    if (record.mode == "segmented") Select(record, starts[line], lines[line].size(), &report);
    return report;
  }

 private:
  void Select(const CorpusRecord& record, size_t first, size_t size, QuestionReport* report) const {
    const CorpusChain chain(record, kBlockTokens);
    report->selection.emplace();
    for (uint64_t block = 0; block < decoys; ++block)
      report->selection->top_blocks.push_back(block);
    // From the line's end, where the value stands.
    for (uint64_t block = chain.blocks(); block-- > 0;) {
      const BlockSpan span = chain.block(block);
      if (span.first_token < first + size && first < span.first_token + span.tokens) {
        report->selection->top_blocks.push_back(block);
      }
    }
    for (const CorpusSource& source : record.sources) {
      // The first line of all begins in the preamble.
      const uint64_t end = first + size;
      const bool inside = end > source.first_token && end <= source.first_token + source.tokens;
      if (inside != wrong_citation) report->citations.push_back({source.path, 0, 0, 0, 0, 1});
    }
  }

  BlockStore& store_;
};

// Answers with the last paragraph of the text.
class LastParagraph final : public PromptAnswerer {
 public:
  Result<PromptAnswer> Answer(std::string_view text, std::string_view /*question*/,
                              uint32_t /*answer_tokens*/) override {
    texts.emplace_back(text);
    return PromptAnswer{std::string(text.substr(text.size() - std::min<size_t>(text.size(), 200))),
                        text.size() + 10, 7, 9};
  }
  std::vector<std::string> texts;
};

LongRecallOptions SmallOptions() {
  LongRecallOptions options;
  options.tasks = {LongTask::kMultikey, LongTask::kRecords};
  options.lengths = {3000, 9000};
  options.texts = {{"prose", {{"a", RecallFiller(1, 9000)}, {"b", RecallFiller(2, 9000)}}}};
  options.questions = 10;
  options.count_tokens = [](std::string_view text) { return text.size(); };
  return options;
}

class LongRecallTest : public testing::Test {
 protected:
  LongRecall Measure(const LongRecallOptions& options = SmallOptions()) {
    auto measured =
        MeasureLongRecall(options, systems_, [](const LongRecall&, const std::string&) {});
    EXPECT_TRUE(measured.ok()) << measured.status().ToString();
    return measured.ok() ? *std::move(measured) : LongRecall{};
  }

  TokenStore store_;
  FakeEngineControls controls_;
  ReadingEngine engine_{store_, controls_};
  EngineBench bench_{engine_, store_, ByteCoder(), {2, 1, 100}, kBlockTokens, 20, nullptr};
  std::vector<std::unique_ptr<LongSystem>> systems_;
};

TEST_F(LongRecallTest, CountsBlocksAnswersAndCitationsOfASegmentedCorpus) {
  engine_.decoys = 3;
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "fused", 2048}));
  const auto cells = LongCells(Measure());
  ASSERT_EQ(cells.size(), 4u);
  for (const LongCell& cell : cells) {
    EXPECT_EQ(cell.system, "cq4 fused 2048");
    EXPECT_EQ(cell.right.asked, 10u);
    EXPECT_EQ(cell.right.hits, 10u);
    EXPECT_EQ(cell.cited.hits, 10u);
    EXPECT_EQ(cell.blocks[0].hits, 0u);  // three others come first
    EXPECT_EQ(cell.blocks[2].hits, 10u);
    EXPECT_EQ(cell.lines[1].hits, 10u);
    EXPECT_EQ(cell.first_token_ms, 5);
    EXPECT_EQ(cell.computed_tokens, 50);
    EXPECT_EQ(cell.read_bytes, 1024);
    // Twice the 50 tokens, over the 250 others attended to and over the preamble's eight.
    EXPECT_EQ(cell.prefill_flop, 2 * (100 + 1275 + 100) + 50 * 250 + 50 * 8);
  }
  for (const QuestionRequest& request : engine_.asked) {
    EXPECT_EQ(request.retrieval, "fused");
    EXPECT_EQ(request.budget_tokens, 2048u);
  }
}

TEST_F(LongRecallTest, WrongBlocksAndCitationsAreNotCounted) {
  engine_.decoys = 48;
  engine_.wrong_citation = true;
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "", 0}));
  LongRecallOptions options = SmallOptions();
  options.lengths = {9000};
  const auto cells = LongCells(Measure(options));
  ASSERT_EQ(cells.size(), 2u);
  for (const LongCell& cell : cells) {
    // Some facts stand in the decoys, which are the first blocks of the corpus.
    EXPECT_LE(cell.blocks[3].hits, 2u);
    EXPECT_LE(cell.cited.hits, 1u);
    EXPECT_EQ(cell.right.hits, 10u);
  }
}

TEST_F(LongRecallTest, ACorpusIsIngestedOnceAndAnotherTextIsAnotherCorpus) {
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "fused", 0}));
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "lexical", 0}));
  (void)Measure();
  (void)Measure();
  EXPECT_EQ(engine_.created.size(), 4u);
  LongRecallOptions options = SmallOptions();
  for (LongDocument& file : options.texts[0].files) file.text = RecallFiller(3, 9000);
  (void)Measure(options);
  EXPECT_EQ(engine_.created.size(), 6u);  // the records are the same
}

TEST_F(LongRecallTest, FullAttentionWhereItFitsAndTheEndWhereItDoesNot) {
  systems_.push_back(MakeFullSystem(bench_, "bf16"));
  systems_.push_back(MakeLastSystem(bench_, "bf16", 3500));
  const auto cells = LongCells(Measure());
  ASSERT_EQ(cells.size(), 4u);
  for (const LongCell& cell : cells) {
    EXPECT_EQ(cell.system, cell.length == 3000 ? "bf16 full attention" : "bf16 last 3500");
    EXPECT_EQ(cell.blocks[0].asked + cell.cited.asked, 0u);
    if (cell.length == 3000) {
      EXPECT_EQ(cell.right.hits, 10u);
    } else {
      EXPECT_EQ(cell.right_deciles[0].hits, 0u);
      EXPECT_EQ(cell.right_deciles[9].hits, cell.right_deciles[9].asked);
    }
  }
}

TEST_F(LongRecallTest, MicroRagReadsTheBestChunkLast) {
  LastParagraph reader;
  ChunkedCorpus chunks(ByteCoder(), 200);
  systems_.push_back(MakeRagSystem(reader, chunks, bench_.flop, {3, 20, 5}));
  systems_.push_back(MakeRagSystem(reader, chunks, bench_.flop, {1, 20, SIZE_MAX}));
  systems_.push_back(MakeBlockAloneSystem(reader, ByteCoder(), bench_.flop, 20));
  const LongRecall recall = Measure();
  const auto cells = LongCells(recall);
  ASSERT_EQ(cells.size(), 12u);
  EXPECT_EQ(cells[0].system, "rag 200x3");
  EXPECT_EQ(cells[0].right.asked, 5u);
  EXPECT_EQ(cells[1].right.asked, 10u);
  EXPECT_GE(cells[1].blocks[1].hits, 9u);  // keys are rare words
  EXPECT_GE(cells[1].lines[1].hits, cells[1].blocks[1].hits);
  EXPECT_GE(cells[1].right.hits, cells[1].blocks[0].hits - 1);
  EXPECT_GT(cells[0].prefill_flop, cells[1].prefill_flop);
  EXPECT_EQ(cells[2].system, "right block alone");
  EXPECT_EQ(cells[2].right.hits, 10u);
  EXPECT_EQ(BestRag(cells, "records", 9000).substr(0, 8), "rag 200x");
  EXPECT_EQ(BestRag(cells, "facts-prose", 0), "");
}

TEST_F(LongRecallTest, CorporaThatCannotBeMadeAreSkippedAndSaidSo) {
  systems_.push_back(MakeFullSystem(bench_, "bf16"));
  LongRecallOptions options = SmallOptions();
  options.lengths = {3000, 50000};
  options.tasks = {LongTask::kMultikey};
  const LongRecall recall = Measure(options);
  EXPECT_EQ(recall.outcomes.size(), 10u);
  ASSERT_EQ(recall.skipped.size(), 1u);
  EXPECT_NE(recall.skipped[0].find("multikey at 50000"), std::string::npos);
}

TEST_F(LongRecallTest, TableJsonAndHeatMapHoldEverySystem) {
  LastParagraph reader;
  ChunkedCorpus chunks(ByteCoder(), 200);
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "fused", 0}));
  systems_.push_back(MakeRagSystem(reader, chunks, bench_.flop, {1, 20, SIZE_MAX}));
  const LongRecall recall = Measure();
  const std::string table = LongRecallTable(recall);
  EXPECT_NE(table.find("cq4 fused"), std::string::npos);
  EXPECT_NE(table.find("rag 200x1             *"), std::string::npos) << table;
  const auto json = LongRecallJson(recall);
  EXPECT_EQ(json["cells"].size(), 8u);
  EXPECT_EQ(json["outcomes"].size(), 80u);
  EXPECT_EQ(json["cells"][0]["blocks"]["at_16"]["hits"], 10);
  const std::string svg = LongRecallHeatMap(recall, "title");
  EXPECT_NE(svg.find("multikey-prose, cq4 fused, block @4: 100.0 %"), std::string::npos);
  EXPECT_NE(svg.find("records, rag 200x1, right"), std::string::npos);
}

TEST_F(LongRecallTest, WhatRunsWroteIsReadBackAndCountedTogether) {
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "fused", 0}));
  systems_.push_back(MakeFullSystem(bench_, "cq4"));
  LongRecall measured = Measure();
  measured.skipped.push_back("a corpus, and why");
  const auto json = LongRecallJson(measured);
  LongRecall read;
  ASSERT_TRUE(AddLongRecall(nlohmann::json::parse(json.dump()), &read).ok());
  EXPECT_EQ(LongRecallJson(read), json);
  EXPECT_EQ(LongRecallTable(read), LongRecallTable(measured));

  ASSERT_TRUE(AddLongRecall(json, &read).ok());  // a second run's
  const auto cells = LongCells(Pooled(read));
  ASSERT_EQ(cells.size(), 3u);  // two lengths, one of which is too long for full attention
  EXPECT_EQ(cells[0].task, "all");
  EXPECT_EQ(cells[0].right.asked, 40u);
  EXPECT_EQ(cells[0].blocks[2].hits, 40u);

  LongRecall none;
  EXPECT_EQ(AddLongRecall(nlohmann::json::parse("{\"cells\": []}"), &none).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(LongRecallTest, CorporaThatAreNotKeptGoAfterTheirQuestions) {
  systems_.push_back(MakeSegmentedSystem(bench_, {"cq4", "fused", 0}));
  (void)Measure();
  EXPECT_EQ(store_.ListCorpora().size(), 4u);
  bench_.keep = false;
  (void)Measure();
  EXPECT_TRUE(store_.ListCorpora().empty());
}

TEST(Bm25, RanksRareWordsAndShortChunksFirst) {
  const Bm25Index index({"the cat sat on the mat and more words than that", "The CAT-dog",
                         "the the the", "nothing here", "a dog, the dog"});
  EXPECT_EQ(index.Search("cat", 5), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(index.Search("the dog?", 1), (std::vector<size_t>{4}));
  EXPECT_TRUE(index.Search("zebra", 5).empty());
  EXPECT_EQ(Bm25Terms("Ab-1 c\xc3\xa9!"), (std::vector<std::string>{"ab", "1", "c\xc3\xa9"}));
}

TEST(LongRecall, AFoldersFilesAreSplit) {
  const TempDir folder;
  for (const char* const name : {"a", "b", "c", "d"}) (void)folder.Write(name, name);
  const auto test = ReadLongTexts("prose=" + folder.path(), true);
  const auto dev = ReadLongTexts("prose=" + folder.path(), false);
  ASSERT_TRUE(test.ok() && dev.ok());
  EXPECT_EQ(test->name, "prose");
  ASSERT_EQ(test->files.size(), 2u);
  EXPECT_EQ(test->files[0].text, "b");
  ASSERT_EQ(dev->files.size(), 2u);
  EXPECT_EQ(dev->files[1].text, "d");
  EXPECT_EQ(ReadLongTexts("x=" + folder.File("a"), true)->files.size(), 1u);
  EXPECT_EQ(ReadLongTexts(folder.path(), true).status().code(), StatusCode::kInvalidArgument);
}

// The whole path on a model: exact corpora in a store of its own, text read anew.
TEST(LongRecall, TheTinyModelIsAskedThroughEngineAndPrompt) {
  const TempDir folder;
  const std::string model = folder.File("tiny.gguf");
  WriteTinyModel(model);
  ModelSessionOptions session_options;
  session_options.model_path = model;
  const auto session = ModelSession::Open(session_options);
  ASSERT_TRUE(session.ok()) << session.status().ToString();
  const auto reader = MakePromptAnswerer(**session);
  ASSERT_TRUE(reader.ok());
  BlockStoreOptions store_options;
  store_options.data_dir = folder.File("store");
  store_options.host_bytes = 16 << 20;
  const auto store = BlockStore::Open(store_options);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EngineOptions engine_options;
  engine_options.model_path = model;
  const auto engine = Engine::Create(engine_options, store->get());
  ASSERT_TRUE(engine.ok()) << engine.status().ToString();
  const Tokenizer& tokenizer = (*session)->tokenizer();
  const TokenCoder coder{[&](std::string_view text) {
                           std::vector<TokenId> ids;
                           tokenizer.Encode(text, false, &ids);
                           return ids;
                         },
                         [&](TokenId id) { return tokenizer.piece(id); }};
  EngineBench bench{**engine, **store, coder, {2, 1, 100}, 128, 4, nullptr};
  ChunkedCorpus chunks(coder, 128);
  std::vector<std::unique_ptr<LongSystem>> systems;
  systems.push_back(MakeFullSystem(bench, "bf16"));
  systems.push_back(MakeLastSystem(bench, "bf16", 500));
  systems.push_back(MakeRagSystem(**reader, chunks, bench.flop, {2, 4, SIZE_MAX}));
  LongRecallOptions options = SmallOptions();
  options.tasks = {LongTask::kRecords};
  options.lengths = {1200};
  options.questions = 3;
  options.count_tokens = [&](std::string_view text) { return coder.encode(text).size(); };
  const auto recall =
      MeasureLongRecall(options, systems, [](const LongRecall&, const std::string&) {});
  ASSERT_TRUE(recall.ok()) << recall.status().ToString();
  const auto cells = LongCells(*recall);
  ASSERT_EQ(cells.size(), 3u);
  for (const LongCell& cell : cells) EXPECT_EQ(cell.right.asked, 3u);
  EXPECT_EQ(recall->prefills.size(), 2u);
  EXPECT_GT(cells[0].attended_tokens, 1200);
  EXPECT_LT(cells[1].attended_tokens, 900);
  EXPECT_GE(cells[2].computed_tokens, 128);
  for (const LongOutcome& outcome : recall->outcomes) EXPECT_FALSE(outcome.answer.text.empty());
}

}  // namespace
}  // namespace corpusd
