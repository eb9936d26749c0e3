// tests/support/tiny_model.h -- writes a whole little llama-family GGUF model with random weights,
// so that tests of everything above the model run in milliseconds. It answers nonsense, but always
// the same nonsense: its logits hang on every token before. Made so that answers are printable
// ASCII and never end by a stop token. Any thread.
#pragma once

#include <cstdint>
#include <string>

namespace corpusd {

struct TinyModelOptions {
  uint64_t seed = 1;
  uint32_t layers = 2;
  uint32_t hidden = 64;         // a multiple of 32
  uint32_t feed_forward = 128;  // a multiple of 32
  uint32_t q_heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;  // a multiple of 16; q_heads * head_dim a multiple of 32
  uint32_t context_tokens = 2048;
};

// The file's bytes: about 75 KB with the default options, the same for the same options
// everywhere. Vocabulary: <|endoftext|> <|im_start|> <|im_end|>, the 256 bytes, and a few merges of
// English.
std::string TinyModelBytes(const TinyModelOptions& options = {});

// The tokenizer of the same vocabulary as a folder has it: tokenizer.json, and the
// tokenizer_config.json with the chat template. Tokens of the vocabulary: kTinyVocabulary.
inline constexpr uint32_t kTinyVocabulary = 281;
std::string TinyTokenizerJson();
std::string TinyTokenizerConfigJson();

// The same, written to a file. Aborts the test program if it cannot.
void WriteTinyModel(const std::string& path, const TinyModelOptions& options = {});

}  // namespace corpusd
