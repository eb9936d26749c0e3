#include "engine/model/hf_source.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "engine/model/rope_rows.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

struct NamePair {
  std::string_view ours, theirs;
};

constexpr std::array kLayerNames = {
    NamePair{"attn_norm.weight", "input_layernorm.weight"},
    NamePair{"attn_q.weight", "self_attn.q_proj.weight"},
    NamePair{"attn_k.weight", "self_attn.k_proj.weight"},
    NamePair{"attn_v.weight", "self_attn.v_proj.weight"},
    NamePair{"attn_q.bias", "self_attn.q_proj.bias"},
    NamePair{"attn_k.bias", "self_attn.k_proj.bias"},
    NamePair{"attn_v.bias", "self_attn.v_proj.bias"},
    NamePair{"attn_q_norm.weight", "self_attn.q_norm.weight"},
    NamePair{"attn_k_norm.weight", "self_attn.k_norm.weight"},
    NamePair{"attn_output.weight", "self_attn.o_proj.weight"},
    NamePair{"attn_output.bias", "self_attn.o_proj.bias"},
    NamePair{"ffn_norm.weight", "post_attention_layernorm.weight"},
};
constexpr std::array kDenseNames = {
    NamePair{"ffn_gate.weight", "gate_proj.weight"},
    NamePair{"ffn_up.weight", "up_proj.weight"},
    NamePair{"ffn_down.weight", "down_proj.weight"},
};
constexpr std::array kExpertNames = {
    NamePair{"ffn_gate_inp.weight", "feed_forward.router.weight"},
    NamePair{"ffn_gate_shexp.weight", "feed_forward.shared_expert.gate_proj.weight"},
    NamePair{"ffn_up_shexp.weight", "feed_forward.shared_expert.up_proj.weight"},
    NamePair{"ffn_down_shexp.weight", "feed_forward.shared_expert.down_proj.weight"},
    NamePair{"ffn_gate_exps.weight", "feed_forward.experts.gate_up_proj"},
    NamePair{"ffn_up_exps.weight", "feed_forward.experts.gate_up_proj"},
    NamePair{"ffn_down_exps.weight", "feed_forward.experts.down_proj"},
};

std::string_view FindName(std::span<const NamePair> names, std::string_view ours) {
  for (const NamePair& pair : names) {
    if (pair.ours == ours) return pair.theirs;
  }
  return {};
}

// Gemma 3 norms what it adds, too, and names its norms by that.
constexpr std::array kGemmaNames = {
    NamePair{"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    NamePair{"post_attention_norm.weight", "post_attention_layernorm.weight"},
    NamePair{"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
};

std::string LayerTensorName(std::string_view rest, const HfLayout& layout) {
  if (layout.family == "gemma3_text") {
    if (const auto name = FindName(kGemmaNames, rest); !name.empty()) return std::string(name);
  }
  if (const auto name = FindName(kLayerNames, rest); !name.empty()) return std::string(name);
  const bool llama4 = layout.family == "llama4_text";
  if (const auto name = FindName(kDenseNames, rest); !name.empty()) {
    return (llama4 ? "feed_forward." : "mlp.") + std::string(name);
  }
  return llama4 ? std::string(FindName(kExpertNames, rest)) : "";
}

// Vectors of it are not read.
constexpr std::string_view kFp8 = "F8_E4M3";

Status RefuseFp8(const SafeTensor& tensor, const std::string& path) {
  if (tensor.dtype != kFp8) return OkStatus();
  return UnimplementedError(path + ": tensor '" + tensor.name +
                            "' is F8_E4M3, which is read of matrices only");
}

bool WeightTypeOf(std::string_view dtype, WeightType* type) {
  if (dtype == "F32") *type = WeightType::kF32;
  if (dtype == "F16") *type = WeightType::kF16;
  if (dtype == "BF16") *type = WeightType::kBf16;
  return dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

std::string ShapeText(std::span<const uint64_t> dims) {
  std::string text;
  for (const uint64_t dim : dims) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text.empty() ? "a single number" : text;
}

// target[r][c] = source[c * source_cols + first_col + r], in squares that stay in the cache.
void Transpose(std::byte* target, const std::byte* source, uint32_t rows, uint32_t cols,
               uint64_t source_cols, uint64_t first_col, size_t element_bytes) {
  constexpr uint32_t kSquare = 32;
  for (uint32_t r0 = 0; r0 < rows; r0 += kSquare) {
    for (uint32_t c0 = 0; c0 < cols; c0 += kSquare) {
      for (uint32_t r = r0; r < std::min(rows, r0 + kSquare); ++r) {
        for (uint32_t c = c0; c < std::min(cols, c0 + kSquare); ++c) {
          std::memcpy(target + (uint64_t{r} * cols + c) * element_bytes,
                      source + (c * source_cols + first_col + r) * element_bytes, element_bytes);
        }
      }
    }
  }
}

}  // namespace

std::string HfTensorName(const std::string& tensor, const HfLayout& layout,
                         const std::string& prefix) {
  if (tensor == "token_embd.weight") return prefix + "embed_tokens.weight";
  if (tensor == "output_norm.weight") return prefix + "norm.weight";
  if (tensor == "output.weight") {
    // Beside the text model: "language_model.model." has "language_model.lm_head".
    return prefix == "language_model.model." ? "language_model.lm_head.weight" : "lm_head.weight";
  }
  constexpr std::string_view kBlock = "blk.";
  const size_t dot = tensor.find('.', kBlock.size());
  if (!tensor.starts_with(kBlock) || dot == std::string::npos) return "";
  const std::string name = LayerTensorName(std::string_view(tensor).substr(dot + 1), layout);
  if (name.empty()) return "";
  return prefix + "layers." + tensor.substr(kBlock.size(), dot + 1 - kBlock.size()) + name;
}

Result<std::unique_ptr<HfSource>> HfSource::Open(const std::string& path) {
  std::unique_ptr<HfSource> source;
  source.reset(new HfSource());
  ASSIGN_OR_RETURN(source->folder_, CheckpointFolder::Open(path));
  ASSIGN_OR_RETURN(source->config_, ReadHfConfig(source->folder_->config(), path + "/config.json"));
  for (const char* const prefix : {"model.", "language_model.model.", "model.language_model."}) {
    if (source->folder_->Find(prefix + std::string("embed_tokens.weight")) != nullptr) {
      source->prefix_ = prefix;
    }
  }
  if (source->prefix_.empty()) {
    return InvalidArgumentError(path + ": its weights lack 'model.embed_tokens.weight'");
  }
  const auto full = std::filesystem::path(path).lexically_normal();
  source->config_.model.name =
      full.has_filename() ? full.filename().string() : full.parent_path().filename().string();
  return source;
}

bool HfSource::Has(const std::string& tensor) const {
  // An untied output that is missing is an error of Matrix, not a tied one.
  if (tensor == "output.weight") return !config_.layout.tied_output;
  const std::string name = HfTensorName(tensor, config_.layout, prefix_);
  return !name.empty() && folder_->Find(name) != nullptr;
}

Result<const SafeTensor*> HfSource::Find(const std::string& tensor,
                                         const std::vector<uint64_t>& dims,
                                         WeightType* type) const {
  const std::string name = HfTensorName(tensor, config_.layout, prefix_);
  return FindNamed(name.empty() ? tensor : name, dims, type);
}

Result<const SafeTensor*> HfSource::FindNamed(const std::string& name,
                                              const std::vector<uint64_t>& dims,
                                              WeightType* type) const {
  const SafeTensor* const found = folder_->Find(name);
  if (found == nullptr) {
    return InvalidArgumentError(path() + ": tensor '" + name + "' is missing");
  }
  if (found->dims != dims) {
    return InvalidArgumentError(path() + ": tensor '" + name + "' is " + ShapeText(found->dims) +
                                ", expected " + ShapeText(dims));
  }
  if (found->dtype == kFp8) {
    *type = WeightType::kBf16;  // as which it is decoded
  } else if (!WeightTypeOf(found->dtype, type)) {
    return UnimplementedError(path() + ": tensor '" + name + "' is " + found->dtype +
                              "; F32, F16, BF16 and F8_E4M3 are read");
  }
  return found;
}

Result<const SafeTensor*> HfSource::ScalesOf(const SafeTensor& codes) const {
  for (const char* const ending : {"_scale_inv", "_scale", ".weight_scale"}) {
    const SafeTensor* const scales = folder_->Find(codes.name + ending);
    if (scales != nullptr) return scales;
  }
  return InvalidArgumentError(path() + ": tensor '" + codes.name + "' is F8_E4M3, but has no " +
                              "scales beside it ('" + codes.name + "_scale')");
}

std::vector<uint32_t> HfSource::RowsOfHead(const std::string& tensor) const {
  if (!config_.layout.half_split_rope || !IsQueryOrKey(tensor)) return {};
  return RowsFromHalves(config_.model.head_dim, config_.model.rope.dimensions);
}

Result<SourceMatrix> HfSource::MatrixNamed(const std::string& name, uint32_t rows,
                                           uint32_t cols) const {
  SourceMatrix matrix;
  WeightSource& weight = matrix.weight;
  ASSIGN_OR_RETURN(const SafeTensor* const found, FindNamed(name, {rows, cols}, &weight.type));
  weight.name = found->name;
  weight.rows = rows;
  weight.cols = cols;
  weight.bytes = found->bytes;
  if (found->dtype != kFp8) return matrix;
  ASSIGN_OR_RETURN(const SafeTensor* const scales, ScalesOf(*found));
  auto decoded = DecodeFp8(found->bytes, rows, cols, *scales, config_.layout.fp8);
  if (!decoded.ok()) return decoded.status().WithContext(path());
  matrix.copy = *std::move(decoded);
  weight.bytes = matrix.copy;
  return matrix;
}

Result<SourceMatrix> HfSource::Matrix(const std::string& tensor, uint32_t rows,
                                      uint32_t cols) const {
  const std::string name = HfTensorName(tensor, config_.layout, prefix_);
  ASSIGN_OR_RETURN(SourceMatrix matrix, MatrixNamed(name.empty() ? tensor : name, rows, cols));
  WeightSource& weight = matrix.weight;
  const std::vector<uint32_t> rows_of_head = RowsOfHead(tensor);
  if (rows_of_head.empty()) return matrix;
  matrix.copy = ReorderRows(weight.bytes, WeightRowBytes(weight.type, cols), rows_of_head);
  weight.bytes = matrix.copy;
  return matrix;
}

Result<SourceMatrix> HfSource::ExpertMatrix(const std::string& tensor, uint32_t expert,
                                            uint32_t experts, uint32_t rows, uint32_t cols) const {
  // gate_up_proj is [experts, cols, gates then ups], down_proj [experts, cols, rows].
  const bool gate = tensor.find("ffn_gate_exps") != std::string::npos;
  const bool up = tensor.find("ffn_up_exps") != std::string::npos;
  const std::string name = HfTensorName(tensor, config_.layout, prefix_);
  if (folder_->Find(name) == nullptr) {
    // Checkpoints made smaller after training have a plain matrix an expert.
    const std::string own = name.substr(0, name.rfind('.') + 1) + std::to_string(expert) +
                            (gate ? ".gate_proj.weight"
                             : up ? ".up_proj.weight"
                                  : ".down_proj.weight");
    if (folder_->Find(own) != nullptr) return MatrixNamed(own, rows, cols);
  }
  const uint64_t source_cols = uint64_t{rows} * (gate || up ? 2 : 1);
  const uint64_t first_col = up ? rows : 0;
  SourceMatrix matrix;
  WeightSource& weight = matrix.weight;
  ASSIGN_OR_RETURN(const SafeTensor* const found,
                   Find(tensor, {experts, cols, source_cols}, &weight.type));
  weight.name = found->name + "[" + std::to_string(expert) + "]";
  weight.rows = rows;
  weight.cols = cols;
  const size_t element_bytes = found->dtype == kFp8 ? 1 : WeightRowBytes(weight.type, 1);
  matrix.copy.resize(uint64_t{rows} * cols * element_bytes);
  Transpose(matrix.copy.data(), found->bytes.data() + expert * cols * source_cols * element_bytes,
            rows, cols, source_cols, first_col, element_bytes);
  if (found->dtype == kFp8) {
    ASSIGN_OR_RETURN(const SafeTensor* const scales, ScalesOf(*found));
    auto decoded = DecodeFp8Expert(matrix.copy, rows, cols, *scales, config_.layout.fp8,
                                   {expert, experts, first_col, source_cols});
    if (!decoded.ok()) return decoded.status().WithContext(path());
    matrix.copy = *std::move(decoded);
  }
  weight.bytes = matrix.copy;
  return matrix;
}

Result<std::vector<float>> HfSource::Vector(const std::string& tensor, uint32_t count) const {
  WeightType type = WeightType::kF32;
  ASSIGN_OR_RETURN(const SafeTensor* const found, Find(tensor, {count}, &type));
  RETURN_IF_ERROR(RefuseFp8(*found, path()));
  std::vector<float> values(count);
  DequantizeRow(type, found->bytes.data(), values.data(), count);
  if (config_.layout.gains_from_one && tensor.ends_with("norm.weight")) {
    for (float& value : values) value += 1;
  }
  const std::vector<uint32_t> rows_of_head = RowsOfHead(tensor);
  return rows_of_head.empty() ? values : ReorderNumbers(values, rows_of_head);
}

std::vector<TensorSize> HfSource::TensorSizes() const {
  std::vector<TensorSize> sizes;
  const std::string embedding = prefix_ + "embed_tokens.weight";
  for (const auto& shard : folder_->shards()) {
    for (const SafeTensor& tensor : shard->tensors()) {
      TensorSize size;
      size.elements = 1;
      for (const uint64_t dim : tensor.dims) size.elements *= dim;
      size.bytes = tensor.bytes.size();
      if (!WeightTypeOf(tensor.dtype, &size.type)) size.type = WeightType::kBf16;
      // The matrices of all experts lie [experts, inputs, outputs].
      if (tensor.dims.size() >= 2) size.cols = static_cast<uint32_t>(tensor.dims[1]);
      size.matrix = tensor.dims.size() >= 2;
      size.embedding = tensor.name == embedding;
      if (size.embedding || tensor.name.ends_with("lm_head.weight")) {
        size.role = WeightRole::kTable;
      } else if (tensor.name.ends_with("router.weight")) {
        size.role = WeightRole::kRouter;
      }
      sizes.push_back(size);
    }
  }
  return sizes;
}

Result<std::unique_ptr<Tokenizer>> HfSource::LoadTokenizer() const {
  ASSIGN_OR_RETURN(TokenizerTables tables, ReadTokenizerFolder(path()));
  return Tokenizer::FromTables(std::move(tables));
}

std::optional<TokenId> HfSource::StartToken() const {
  const auto source = ReadFolderChat(path());
  if (!source.ok() || !source->start_token || *source->start_token >= config_.model.vocabulary) {
    return std::nullopt;
  }
  return static_cast<TokenId>(*source->start_token);
}

Result<ChatTemplate> HfSource::LoadChatTemplate(const Tokenizer& tokenizer) const {
  ASSIGN_OR_RETURN(const ChatSource source, ReadFolderChat(path()));
  return ChatTemplate::FromSource(source, tokenizer);
}

}  // namespace corpusd
