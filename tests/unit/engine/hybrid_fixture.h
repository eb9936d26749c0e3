// tests/unit/engine/hybrid_fixture.h -- an Engine over tiny random models whose layers see chunks
// or windows, corpora of any number of tokens, and the oracle: the same model with every layer kept
// whole. One thread.
#pragma once

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "engine/backend/cpu_backend.h"
#include "engine/model/model_source.h"
#include "engine/prefill/block_repair.h"
#include "tests/support/hashed_checkpoint.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {

struct HybridModel {
  const char* family;  // a case of families.jsonl whose name begins so
  uint32_t span = 0;   // tokens of a chunk or window
};

// Gives out token ids as they are.
class GivenTokens final : public CorpusTokenizer {
 public:
  explicit GivenTokens(std::vector<TokenId> ids) : ids_(std::move(ids)) {}
  void BeginSource(std::string_view /*path*/) override {}
  void Append(std::string_view /*bytes*/) override {}
  void EndSource() override {}
  uint64_t tokens() const override { return ids_.size(); }
  void NameDocuments() override {}
  std::vector<TokenId> TakeTokens() override { return std::move(ids_); }
  std::vector<CorpusSource> TakeSources() override { return {}; }

 private:
  std::vector<TokenId> ids_;
};

class HybridFixture : public EngineFixture {
 protected:
  void SetUp() override {}

  void Start(const HybridModel& model) {
    engine_.reset();
    store_.reset();
    const std::string name = "model" + std::to_string(++models_);
    options_.model_path = folder_.File(name);
    options_.threads = 2;
    options_.kv_format = "bf16";
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.Write("text", Prose(300, 9));  // two windows
    store_options_.data_dir = folder_.File("data" + std::to_string(models_));
    std::filesystem::create_directory(options_.model_path);
    WriteModel(model);
    folder_.Write(name + "/tokenizer.json", TinyTokenizerJson());
    folder_.Write(name + "/tokenizer_config.json", TinyTokenizerConfigJson());
    auto backend = MakeCpuBackend({2, "auto"});
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    backend_ = std::move(*backend);
    auto source = OpenModelSource(options_.model_path);
    ASSERT_TRUE(source.ok()) << source.status().ToString();
    source_ = std::move(*source);
    auto loaded = LoadModel(*source_, *backend_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    own_model_ = std::move(*loaded);
    Restart();
  }

  // The case with the tiny model's vocabulary, the span and the size of heads that is wanted.
  void WriteModel(const HybridModel& model) {
    const auto cases = ReadFamilyCases(GoldenPath(families_));
    const auto found = std::find_if(cases.begin(), cases.end(), [&](const FamilyCase& c) {
      return c.name.starts_with(model.family);
    });
    ASSERT_NE(found, cases.end()) << model.family;
    FamilyCase c = *found;
    nlohmann::json& config = c.record["config"];
    config["vocab_size"] = kTinyVocabulary;
    config["max_position_embeddings"] = context_tokens_;
    config["head_dim"] = head_dim_;
    if (config.contains("attention_chunk_size")) config["attention_chunk_size"] = model.span;
    if (config.contains("sliding_window")) config["sliding_window"] = model.span;
    for (nlohmann::json& tensor : c.record["tensors"]) {
      nlohmann::json& shape = tensor[1];
      const auto name = tensor[0].get<std::string>();
      if (name.find("embed_tokens") != std::string::npos ||
          name.find("lm_head") != std::string::npos) {
        shape[0] = kTinyVocabulary;
      }
      if (name.ends_with("q_proj.weight")) shape[0] = 4 * head_dim_;
      if (name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight")) {
        shape[0] = 2 * head_dim_;
      }
      if (name.ends_with("o_proj.weight")) shape[1] = 4 * head_dim_;
      if (name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight")) shape[0] = head_dim_;
    }
    c.record["seed"] = 7;
    WriteCheckpoint(c, options_.model_path);
  }

  // The same ids for the same seed; `same` of them are those of seed 0.
  static std::vector<TokenId> Ids(size_t count, uint32_t seed = 0, size_t same = 0) {
    std::mt19937 shared(0), own(seed);
    std::vector<TokenId> ids;
    for (size_t i = 0; i < count; ++i) ids.push_back((i < same ? shared() : own()) % 256 + 3);
    return ids;
  }

  Status PrefillAll(const std::string& name, uint64_t* reused = nullptr) {
    return engine_->Prefill(name,
                            [&](const PrefillProgress& progress) {
                              if (reused != nullptr) *reused = progress.reused_tokens;
                            },
                            {});
  }
  void IngestIds(const std::string& name, const std::vector<TokenId>& ids,
                 const std::string& format = "", uint64_t* reused = nullptr) {
    CorpusRequest request;
    request.name = name;
    request.mode = "exact";
    request.kv_format = format;
    const auto created = engine_->CreateCorpus(request, std::make_unique<GivenTokens>(ids));
    ASSERT_TRUE(created.ok()) << created.status().ToString();
    const Status status = PrefillAll(name, reused);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void AppendIds(const std::string& name, const std::vector<TokenId>& ids) {
    const auto appended = engine_->AppendCorpus(name, std::make_unique<GivenTokens>(ids));
    ASSERT_TRUE(appended.ok()) << appended.status().ToString();
    const Status status = PrefillAll(name);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

  // A model that keeps everything: all layers of all blocks, computed in runs as a corpus is.
  std::unique_ptr<KvSequence> KeepAll(std::span<const TokenId> ids) {
    const KvFormat format = *own_model_->Format("bf16");
    auto kv = std::make_unique<KvSequence>(format, format);
    const auto scratch = ForwardScratch::Create(*backend_, own_model_->config(), kRunTokens);
    for (size_t first = 0; first < ids.size(); first += kRunTokens) {
      const auto run = ids.subspan(first, std::min<size_t>(kRunTokens, ids.size() - first));
      EXPECT_TRUE(own_model_->Forward(run, *kv, **scratch, [] { return true; }).ok());
    }
    return kv;
  }

  KvLayout Layout() {
    const KvFormat format = *own_model_->Format("bf16");
    return {format, format, nullptr, nullptr, own_model_->parts()};
  }

  // What a chunk or window of the model needs at a place, said once more: the blocks that hold a
  // position which the next token sees.
  static std::set<uint64_t> SeenBlocks(const LayerPart& part, uint64_t position) {
    std::set<uint64_t> blocks;
    for (uint64_t p = 0; p < position; ++p) {
      const bool seen = part.window ? p + part.span_tokens > position
                                    : p / part.span_tokens == position / part.span_tokens;
      if (seen) blocks.insert(p / kBlockTokens);
    }
    return blocks;
  }

  // Every stored byte is the one that a model keeping everything has, and what the next token sees
  // is stored.
  void ExpectAsKeptWhole(const std::string& name, const KvSequence& all) {
    const CorpusRecord record = *store_->GetCorpus(name);
    ASSERT_EQ(record.durable_tokens, all.tokens());
    ASSERT_EQ(record.state, CorpusState::kReady);
    const auto blocks = all.OwnBlocks();
    ASSERT_EQ(blocks.size(), record.chain.size());
    const auto layout = Layout();
    const uint64_t layer_bytes = layout.blocks.LayerBytes(0);
    const auto expect_same = [&](const Digest& digest, uint64_t block, uint32_t part) {
      std::vector<std::byte> payload;
      uint32_t sections = 0;
      const Status read = store_->ReadBlock(digest, &payload, &sections);
      ASSERT_TRUE(read.ok()) << read.ToString();
      for (uint32_t layer = 0; layer < layout.blocks.layers; ++layer) {
        const LayerPlace place = layout.parts->places[layer];
        if (place.part != part) continue;
        const auto kept = blocks[block].bytes.subspan(layer * layer_bytes, layer_bytes);
        const auto stored = std::span(payload).subspan(place.index * layer_bytes, layer_bytes);
        ASSERT_TRUE(std::equal(kept.begin(), kept.end(), stored.begin()))
            << "layer " << layer << " of block " << block;
      }
    };
    for (uint64_t b = 0; b < record.chain.size(); ++b) expect_same(record.chain[b], b, 0);
    std::vector<std::set<uint64_t>> held(record.parts.size());
    for (const HeldPart& part : HeldParts(record)) {
      expect_same(part.digest, part.block, part.part + 1);
      held[part.part].insert(part.block);
    }
    ASSERT_EQ(record.parts.size() + 1, layout.parts->parts.size());
    for (size_t p = 0; p < held.size(); ++p) {
      for (const uint64_t block : SeenBlocks(layout.parts->parts[p + 1], all.tokens())) {
        EXPECT_TRUE(held[p].contains(block)) << record.parts[p].kind << " of block " << block;
      }
    }
  }

  // A follow-up over the store computes, bit for bit, what it computes over everything.
  void ExpectSameFollowUp(const std::string& name, const KvSequence& all) {
    const CorpusRecord record = *store_->GetCorpus(name);
    const KvLayout layout = Layout();
    auto arriving = PrefetchCorpus(*store_, record, layout, {});
    ASSERT_TRUE(arriving.ok()) << arriving.status().ToString();
    ASSERT_TRUE(arriving->Whole());
    const auto kv = SequenceOver(*arriving, layout);
    KvSequence whole(layout.blocks, layout.blocks);
    for (const auto& block : all.OwnBlocks()) whole.AddShared(block.bytes.data(), block.tokens);
    const auto next = Ids(9, 77);
    const auto hidden = [&](KvSequence& sequence) {
      const auto scratch = ForwardScratch::Create(*backend_, own_model_->config(), 8);
      std::vector<float> numbers;
      for (const auto& call : {std::span(next).first(8), std::span(next).last(1)}) {
        EXPECT_TRUE(own_model_->Forward(call, sequence, **scratch, [] { return true; }).ok());
        const MatrixView view = (*scratch)->hidden->Matrix(static_cast<uint32_t>(call.size()),
                                                           own_model_->config().hidden);
        for (uint32_t r = 0; r < view.rows; ++r) {
          numbers.insert(numbers.end(), view.row(r), view.row(r) + view.cols);
        }
      }
      return numbers;
    };
    EXPECT_EQ(hidden(*kv), hidden(whole)) << "after " << all.tokens() << " tokens";
  }

  void ExpectExact(const std::string& name, const std::vector<TokenId>& ids) {
    const auto all = KeepAll(ids);
    ExpectAsKeptWhole(name, *all);
    ExpectSameFollowUp(name, *all);
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
  }

  const char* families_ = "families.jsonl";
  uint32_t head_dim_ = 16;
  uint32_t context_tokens_ = 16384;
  int models_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<Model> own_model_;
};

}  // namespace corpusd
