#include "tests/support/tiny_model.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "kernels/weight_types.h"
#include "store/base/check.h"
#include "store/base/split_mix.h"
#include "tests/support/gguf_writer.h"

namespace corpusd {
namespace {

using Random = SplitMix;

// REQUIRES: a normal binary16 in range. Rounds towards zero, which is all that scales need.
std::string Half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t exponent = ((bits >> 23) & 0xff) - 112;
  CHECK(exponent >= 1 && exponent <= 30) << value << " is no normal binary16";
  return RawBytes(
      static_cast<uint16_t>((bits >> 31) << 15 | exponent << 10 | ((bits >> 13) & 1023)));
}

// The character that stands for a byte in vocabularies of the GPT-2 kind, as UTF-8.
std::string ByteCharacter(uint32_t byte) {
  const auto shown = [](uint32_t b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  uint32_t code = byte;
  if (!shown(byte)) {
    code = 256;
    for (uint32_t b = 0; b < byte; ++b) code += shown(b) ? 0 : 1;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

constexpr uint32_t kSpecials = 3;
constexpr uint32_t kBytes = 256;

// Left and right part of each merge, best first; "G" with a dot is a space ("\u0120").
constexpr std::pair<const char*, const char*> kMerges[] = {
    {"\u0120", "t"},      {"\u0120", "a"},     {"h", "e"},        {"i", "n"},      {"r", "e"},
    {"o", "n"},           {"\u0120t", "he"},   {"e", "r"},        {"\u0120", "s"}, {"a", "t"},
    {"\u0120", "\u0120"}, {"n", "d"},          {"\u0120a", "nd"}, {"in", "g"},     {"\u0120", "o"},
    {"\u0120o", "f"},     {"e", "n"},          {"o", "r"},        {"\u0120", "w"}, {"i", "s"},
    {"\u010a", "\u010a"}, {"\u00e2", "\u0122"}};

constexpr std::string_view kChatTemplate =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}";

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;  // 1: ordinary, 3: control
  std::vector<std::string> merges;
};

Vocabulary MakeVocabulary() {
  Vocabulary vocabulary;
  vocabulary.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  vocabulary.kinds.assign(kSpecials, 3);
  for (uint32_t byte = 0; byte < kBytes; ++byte) vocabulary.tokens.push_back(ByteCharacter(byte));
  for (const auto& [left, right] : kMerges) {
    vocabulary.tokens.push_back(std::string(left) + right);
    vocabulary.merges.push_back(std::string(left) + " " + right);
  }
  vocabulary.kinds.resize(vocabulary.tokens.size(), 1);
  return vocabulary;
}

// Random codes around zero: uniform over 16 steps of 2/15 * reach.
std::string RandomQ4_1(Random* random, uint64_t rows, uint64_t cols, float reach) {
  const std::string head = Half(reach / 7.5F) + Half(-reach);
  std::string data;
  for (uint64_t block = 0; block < rows * cols / 32; ++block) {
    data += head;
    data += RawBytes(random->Next());
    data += RawBytes(random->Next());
  }
  return data;
}

// True if the token is printable ASCII, spaces included.
bool Prints(std::string_view token) {
  constexpr std::string_view kSpace = "\u0120";
  for (size_t i = 0; i < token.size();) {
    const size_t space_bytes = token.substr(i).starts_with(kSpace) ? kSpace.size() : 0;
    if (space_bytes == 0 && (token[i] < '!' || token[i] > '~')) return false;
    i += std::max<size_t>(space_bytes, 1);
  }
  return true;
}

// Tokens that print get long rows and therefore the greatest logits; the others are never the best.
std::string RandomEmbedding(Random* random, const Vocabulary& vocabulary, uint32_t cols) {
  std::string data;
  for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool prints = id >= kSpecials && Prints(vocabulary.tokens[id]);
    const std::string head = Half(prints ? 1.0F / 64 : 1.0F / 1024);
    for (uint32_t block = 0; block < cols / 32; ++block) {
      data += head;
      for (int word = 0; word < 4; ++word) data += RawBytes(random->Next());
    }
  }
  return data;
}

std::string RandomNorm(Random* random, uint32_t size) {
  std::string data;
  for (uint32_t i = 0; i < size; ++i) {
    data += RawBytes(0.75F + static_cast<float>(random->Next() >> 40) * 0x1p-25F);
  }
  return data;
}

void AddMetadata(const TinyModelOptions& o, const Vocabulary& vocabulary, GgufWriter* writer) {
  writer->AddString("general.architecture", "llama");
  writer->AddString("general.name", "tiny random model " + std::to_string(o.seed));
  writer->AddUint("llama.block_count", o.layers);
  writer->AddUint("llama.context_length", o.context_tokens);
  writer->AddUint("llama.embedding_length", o.hidden);
  writer->AddUint("llama.feed_forward_length", o.feed_forward);
  writer->AddUint("llama.attention.head_count", o.q_heads);
  writer->AddUint("llama.attention.head_count_kv", o.kv_heads);
  writer->AddUint("llama.attention.key_length", o.head_dim);
  writer->AddUint("llama.attention.value_length", o.head_dim);
  writer->AddUint("llama.rope.dimension_count", o.head_dim);
  writer->AddFloat("llama.rope.freq_base", 10000);
  writer->AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  writer->AddUint("llama.vocab_size", static_cast<uint32_t>(vocabulary.tokens.size()));
  writer->AddString("tokenizer.ggml.model", "gpt2");
  writer->AddString("tokenizer.ggml.pre", "smollm");
  writer->AddStrings("tokenizer.ggml.tokens", vocabulary.tokens);
  writer->AddInts("tokenizer.ggml.token_type", vocabulary.kinds);
  writer->AddStrings("tokenizer.ggml.merges", vocabulary.merges);
  writer->AddUint("tokenizer.ggml.bos_token_id", 1);
  writer->AddUint("tokenizer.ggml.eos_token_id", 2);
  writer->AddUint("tokenizer.ggml.padding_token_id", 2);
  writer->AddBool("tokenizer.ggml.add_bos_token", false);
  writer->AddString("tokenizer.chat_template", kChatTemplate);
}

}  // namespace

std::string TinyModelBytes(const TinyModelOptions& o) {
  CHECK(o.hidden % 32 == 0 && o.feed_forward % 32 == 0 && o.head_dim % 16 == 0 &&
        o.q_heads * o.head_dim % 32 == 0)
      << "hidden " << o.hidden << ", feed_forward " << o.feed_forward << ", heads " << o.q_heads
      << " of " << o.head_dim;
  const Vocabulary vocabulary = MakeVocabulary();
  Random random(o.seed);
  GgufWriter writer;
  AddMetadata(o, vocabulary, &writer);
  const auto add = [&](const std::string& name, WeightType type, std::vector<uint64_t> dims,
                       const std::string& data) {
    writer.AddTensor(name + ".weight", static_cast<uint32_t>(type), dims, data);
  };
  // A reach of r gives a standard deviation of 0.61 r. 0.4 makes the values of q and k about 2 on a
  // normalised input of 64, so that attention is peaked and its outcome depends on the whole
  // prefix.
  const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    add(name, WeightType::kQ4_1, {cols, rows}, RandomQ4_1(&random, rows, cols, 0.4F));
  };
  const uint64_t q_size = uint64_t{o.q_heads} * o.head_dim;
  const uint64_t kv_size = uint64_t{o.kv_heads} * o.head_dim;
  add("token_embd", WeightType::kQ8_0, {o.hidden, vocabulary.tokens.size()},
      RandomEmbedding(&random, vocabulary, o.hidden));
  for (uint32_t layer = 0; layer < o.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    add(prefix + "attn_norm", WeightType::kF32, {o.hidden}, RandomNorm(&random, o.hidden));
    matrix(prefix + "attn_q", q_size, o.hidden);
    matrix(prefix + "attn_k", kv_size, o.hidden);
    matrix(prefix + "attn_v", kv_size, o.hidden);
    matrix(prefix + "attn_output", o.hidden, q_size);
    add(prefix + "ffn_norm", WeightType::kF32, {o.hidden}, RandomNorm(&random, o.hidden));
    matrix(prefix + "ffn_gate", o.feed_forward, o.hidden);
    matrix(prefix + "ffn_up", o.feed_forward, o.hidden);
    matrix(prefix + "ffn_down", o.hidden, o.feed_forward);
  }
  add("output_norm", WeightType::kF32, {o.hidden}, RandomNorm(&random, o.hidden));
  return writer.Finish();
}

std::string TinyTokenizerJson() {
  const Vocabulary vocabulary = MakeVocabulary();
  CHECK(vocabulary.tokens.size() == kTinyVocabulary) << vocabulary.tokens.size();
  nlohmann::json ids, added, merges;
  for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (id >= kSpecials) {
      ids[vocabulary.tokens[id]] = id;
    } else {
      added.push_back({{"id", id}, {"content", vocabulary.tokens[id]}, {"special", true}});
    }
  }
  for (const auto& [left, right] : kMerges) merges.push_back({left, right});
  const nlohmann::json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return nlohmann::json{
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {digits, bytes}}}},
      {"decoder", bytes},
      {"model", {{"type", "BPE"}, {"vocab", ids}, {"merges", merges}}}}
      .dump();
}

std::string TinyTokenizerConfigJson() {
  return nlohmann::json{{"chat_template", kChatTemplate}}.dump();
}

void WriteTinyModel(const std::string& path, const TinyModelOptions& options) {
  const std::string bytes = TinyModelBytes(options);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  CHECK(!file.fail()) << path << " cannot be written";
}

}  // namespace corpusd
