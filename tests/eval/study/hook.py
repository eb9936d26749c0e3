"""A transformers model whose attention reads its keys and values back through a KV format.

Every position goes through the format, the query's own token included, as in llama.cpp with a
quantized cache; sinks and an exact tail are the exceptions a recipe may ask for. Works with any
model whose attention calls transformers' attention interface after rotating q and k (Llama, Qwen2,
Gemma 3). Everything in float32.
"""

import os

import torch
from transformers import (AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM,
                          AutoTokenizer)

from study import gguf_pieces


def rotate(x, angles, sign):
    """Rotates pairs (j, j + d/2) of x [..., tokens, d] by sign * angles [tokens, d/2]."""
    cos, sin = torch.cos(angles), sign * torch.sin(angles)
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Cache:
    """What the attention does to K and V; `format` None means: nothing."""

    def __init__(self):
        self.format = None     # object with keys(layer, k), values(layer, v), sinks, tail
        self.collect = None    # dict layer -> list of (q, k, v), filled by plain passes
        self.gradients = None  # dict layer -> list of (k, v) leaves that keep their gradient


CACHE = Cache()


def visible(tokens, window, device):
    i = torch.arange(tokens, device=device)
    mask = i[None, :] <= i[:, None]
    if window:
        mask &= i[:, None] - i[None, :] < window
    return mask


def attention(module, query, key, value, attention_mask, scaling=None, **_):
    """softmax(q k^T) v in plain matrices; shapes [batch, heads, tokens, head_dim]."""
    layer = module.layer_idx
    groups = query.shape[1] // key.shape[1]
    scaling = module.head_dim ** -0.5 if scaling is None else scaling
    if CACHE.collect is not None:
        CACHE.collect.setdefault(layer, []).append(
            (query.detach(), key.detach(), value.detach()))
    if CACHE.gradients is not None:
        key.retain_grad()
        value.retain_grad()
        CACHE.gradients.setdefault(layer, []).append((key, value))
    bias = None
    exact_key, exact_value = key, value
    if CACHE.format is not None:
        if hasattr(CACHE.format, "look"):
            CACHE.format.look(layer, query, key, value)
        key, value = CACHE.format.keys(layer, key), CACHE.format.values(layer, value)
        s = CACHE.format.sinks
        if s:
            key = torch.cat((exact_key[:, :, :s], key[:, :, s:]), dim=2)
            value = torch.cat((exact_value[:, :, :s], value[:, :, s:]), dim=2)
        bias = CACHE.format.score_bias(layer, query, scaling)
    tokens = key.shape[2]
    mask = visible(tokens, getattr(module, "sliding_window", None), key.device)
    out = torch.empty_like(query)
    for h in range(query.shape[1]):  # a head at a time: [batch, tokens, tokens] in memory
        g = h // groups
        scores = query[:, h] @ key[:, g].transpose(1, 2) * scaling
        if bias is not None:
            scores = scores + bias(h)
        recent = None
        if CACHE.format is not None and CACHE.format.tail:
            i = torch.arange(tokens, device=key.device)
            # The unfinished tile: exact for the queries of that tile, as a store would hold it.
            recent = i[:, None] // CACHE.format.tail == i[None, :] // CACHE.format.tail
            exact = query[:, h] @ exact_key[:, g].transpose(1, 2) * scaling
            scores = torch.where(recent, exact, scores)
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
        if recent is None:
            out[:, h] = weights @ value[:, g]
        else:
            out[:, h] = (weights * ~recent) @ value[:, g] + (weights * recent) @ exact_value[:, g]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("kv_study", attention)
AttentionMaskInterface.register("kv_study", lambda *a, **k: None)


class StudyModel:
    """The model, its shapes and its rotation frequencies."""

    def __init__(self, path, device):
        self.device = device
        self.path = path
        folder, name = os.path.split(os.path.abspath(path))
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, attn_implementation="kv_study")
        self.model.to(device).eval().requires_grad_(False)
        config = self.model.config
        self.layers = config.num_hidden_layers
        self.q_heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.q_heads
        self.vocabulary = config.vocab_size
        self.softcap = getattr(config, "final_logit_softcapping", None)

    def tokenizer(self):
        """RETURNS a function from text to token ids, no special tokens added."""
        pieces = gguf_pieces.read(self.path)
        if pieces:
            return pieces.encode
        folder, name = os.path.split(os.path.abspath(self.path))
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]

    def attention_module(self, layer):
        return self.model.model.layers[layer].self_attn

    def frequencies(self, layer):
        """[head_dim / 2] radians a token."""
        rotary = self.model.model.rotary_emb
        kinds = getattr(self.model.config, "layer_types", None)
        if kinds is not None and hasattr(rotary, kinds[layer] + "_inv_freq"):
            return getattr(rotary, kinds[layer] + "_inv_freq").float()
        if getattr(self.attention_module(layer), "is_sliding", False) and \
                hasattr(self.model.model, "rotary_emb_local"):
            rotary = self.model.model.rotary_emb_local
        return rotary.inv_freq.float()

    def output_weight(self, layer, kv_head):
        """W_o of the query heads that read kv_head: [groups, hidden, head_dim]."""
        weight = self.attention_module(layer).o_proj.weight
        groups = self.q_heads // self.kv_heads
        parts = weight.reshape(weight.shape[0], self.q_heads, self.head_dim)
        return parts[:, kv_head * groups:(kv_head + 1) * groups].permute(1, 0, 2)

    def hidden(self, ids):
        return self.model.model(input_ids=ids, use_cache=False).last_hidden_state

    def logits(self, hidden):
        logits = self.model.lm_head(hidden)
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits
