#!/usr/bin/env python3
"""Makes families.jsonl: tiny random models of each family that Hugging Face folders are read for,
and what transformers computes with them in float32 (eager attention), one model a line.

  V/bin/python tests/golden/make_families.py [--every] [--device | --borders] [FILE]

Weights are not kept: each number is a hash of the tensor's name and its place (see numbers()),
which the test writes into a folder again. Of each position 8 logits are kept, of long texts 4,
spread over the vocabulary; --every keeps all of them, for a run by hand (CORPUSD_FAMILIES=FILE in
the test's environment). --device makes families_device.jsonl: the same with heads of 64 numbers and
matrices of multiples of 32 inputs, which CUDA kernels take. --borders makes families_borders.jsonl:
texts of several chunks or windows with the logits around their borders ("positions"), in models
that between them have every pair of values of Llama 4's switches.

Run by hand, with a Python that has torch and transformers:
  python3 -m venv V && V/bin/pip install torch transformers numpy
"""
import itertools
import json
import os
import random
import sys

import numpy
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = 8
MASK = (1 << 64) - 1


def name_seed(name, seed):
    value = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return (value + seed) & MASK


def numbers(name, seed, count, scale, offset):
    """offset + scale * k / 128, k a hashed int8: SplitMix64 (Steele et al. 2014) of seed + place.
    The same in F32, F16 and BF16, since scale is a power of two and offset 0 or 1."""
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(name_seed(name, seed)) + numpy.arange(1, count + 1, dtype=numpy.uint64) * \
            numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    k = (z >> numpy.uint64(56)).astype(numpy.int64) - 128
    return (offset + scale * k / 128).astype(numpy.float32)


def spread_of(name, gain_offset):
    """scale and offset of a tensor's numbers: gains near 1, the others such that attention is
    peaked and experts are told apart."""
    if name.endswith("norm.weight"):
        return 1.0, gain_offset
    if name.endswith("embed_tokens.weight"):
        return 1.0, 0.0
    if name.endswith(".bias"):
        return 0.5, 0.0
    return (0.25 if DEVICE else 0.5), 0.0  # sums of more numbers


def fill(model, seed, gain_offset):
    tensors = []
    state = model.state_dict()
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name in sorted(state):
            if tied and name == "lm_head.weight":
                continue
            scale, offset = spread_of(name, gain_offset)
            shape = list(state[name].shape)
            values = numbers(name, seed, int(numpy.prod(shape)), scale, offset)
            state[name].copy_(torch.from_numpy(values.reshape(shape)))
            tensors.append([name, shape, scale, offset])
    return tensors


def config_json(config):
    keep = json.loads(config.to_json_string(use_diff=False))
    drop = ("transformers_version", "id2label", "label2id", "_name_or_path", "problem_type",
            "chunk_size_feed_forward", "return_dict", "output_hidden_states", "use_cache",
            "initializer_range", "architectures", "dtype", "output_attentions",
            "is_encoder_decoder", "attention_dropout", "router_aux_loss_coef",
            "router_jitter_noise", "output_router_logits", "pretraining_tp")
    return {key: value for key, value in keep.items() if key not in drop}


def case(name, model_class, config, tokens, every, dtype="F32", shards=1, wrapper=None,
         gain_offset=1.0, borders=None):
    """borders: positions whose neighbourhoods alone are kept; None: all positions."""
    seed = sum(name.encode()) * 1000003
    torch.manual_seed(0)
    model = model_class._from_config(config, attn_implementation="eager",
                                     dtype=torch.float32).eval()
    tensors = fill(model, seed, gain_offset)
    ids = [int(v) for v in (numbers(name + " ids", seed, tokens, 128, 128)).astype(int)
           % config.vocab_size]
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    rows = []
    positions = list(range(tokens)) if borders is None else near(borders, tokens)
    for position in positions:
        row = logits[position]
        if every:
            at = list(range(len(row)))
        else:
            kept = KEPT if tokens < 100 and borders is None else KEPT // 2
            at = [(position + i * len(row) // kept) % len(row) for i in range(kept)]
        rows.append([float(f"{row[i]:.6g}") for i in at])
    json_config = config_json(config)
    prefix = ""
    if wrapper:
        json_config = {"model_type": wrapper, "text_config": json_config,
                       "tie_word_embeddings": config.tie_word_embeddings}
        prefix = "language_model."
    record = {"name": name, "config": json_config, "dtype": dtype, "shards": shards,
              "prefix": prefix, "seed": seed, "tensors": tensors, "ids": ids, "logits": rows}
    if borders is not None:
        record.update(positions=positions, borders=borders)
    return record


def near(borders, tokens):
    """RETURNS the positions of the first and last tokens, and those around borders."""
    at = {0, 1, tokens - 2, tokens - 1} | {b + d for b in borders for d in (-2, -1, 0, 1, 2)}
    return sorted(p for p in at if 0 <= p < tokens)


DEVICE = "--device" in sys.argv
SMALL = {"vocab_size": 64, "hidden_size": 64 if DEVICE else 32, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64 if DEVICE else 16,
         "max_position_embeddings": 512}
INNER, INNER_DENSE = (64, 96) if DEVICE else (24, 40)


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def llama3(factor, low, high, original, theta=500000.0):
    return rope("llama3", theta, factor=factor, low_freq_factor=low, high_freq_factor=high,
                original_max_position_embeddings=original)


def llama4_cases(every):
    def make(name, tokens, dtype="F32", shards=1, wrapper=None, **switches):
        base = dict(SMALL, intermediate_size=INNER, intermediate_size_mlp=INNER_DENSE,
                    num_experts_per_tok=1, num_local_experts=4, attention_chunk_size=16, floor_scale=8, attn_scale=0.5,
                    rope_parameters=llama3(16.0, 1.0, 1.0, 64))
        config = transformers.Llama4TextConfig(**dict(base, **switches))
        return case("llama4 " + name, transformers.Llama4ForCausalLM, config, tokens, every, dtype,
                    shards, wrapper)

    yield make("as Scout: chunks, no positions every fourth layer, experts everywhere", 67)
    yield make("interleaved dense layers, two experts a token", 65, interleave_moe_layer_step=2,
               num_experts_per_tok=2, attention_chunk_size=32, shards=3)
    yield make("no head norm, no temperature, one expert, plain rope", 50, use_qk_norm=False,
               attn_temperature_tuning=False, num_local_experts=1, rope_parameters=rope())
    yield make("another pattern, chunks that share no border with blocks", 150, num_hidden_layers=3,
               no_rope_layers=[0, 1, 0], attention_chunk_size=24, num_experts_per_tok=2)
    yield make("tied output, biases", 40, tie_word_embeddings=True, attention_bias=True,
               attention_chunk_size=20, num_hidden_layers=2, no_rope_layer_interval=2)
    yield make("one chunk for all, 16 experts, a ramp of frequencies", 60, num_local_experts=16,
               attention_chunk_size=8192, rope_parameters=llama3(8.0, 1.0, 4.0, 128),
               num_hidden_layers=2, no_rope_layer_interval=2)
    yield make("dense, positions and full attention everywhere", 40, moe_layers=[],
               no_rope_layers=[1, 1], num_hidden_layers=2, attention_chunk_size=8192 if DEVICE else None)
    yield make("chunks as long as a block, over several blocks", 300, attention_chunk_size=128,
               num_hidden_layers=2, no_rope_layer_interval=2, moe_layers=[1], floor_scale=64)
    yield make("as published: bf16, beside a vision model", 35, dtype="BF16", shards=2,
               wrapper="llama4", num_hidden_layers=2, no_rope_layer_interval=2)


def plain_cases(every):
    def make(name, model_class, config, tokens, dtype="F32", gain_offset=1.0, **switches):
        base = dict(SMALL, num_hidden_layers=2, intermediate_size=INNER_DENSE,
                    rope_parameters=rope())
        return case(name, model_class, config(**dict(base, **switches)), tokens, every, dtype,
                    gain_offset=gain_offset)

    t = transformers
    yield make("llama 3: scaled frequencies, tied output", t.LlamaForCausalLM, t.LlamaConfig, 150,
               tie_word_embeddings=True, rope_parameters=llama3(8.0, 1.0, 4.0, 64))
    yield make("llama: biases, linear scaling, f16", t.LlamaForCausalLM, t.LlamaConfig, 40,
               dtype="F16", attention_bias=True, rope_parameters=rope("linear", factor=4.0))
    yield make("qwen2: biases of queries, keys and values", t.Qwen2ForCausalLM, t.Qwen2Config, 40)
    yield make("qwen2: a window on the upper layers", t.Qwen2ForCausalLM, t.Qwen2Config, 60,
               use_sliding_window=True, sliding_window=20, max_window_layers=1)
    yield make("mistral: a window", t.MistralForCausalLM, t.MistralConfig, 300, sliding_window=40)
    yield make("mistral: a window longer than a block", t.MistralForCausalLM, t.MistralConfig, 300,
               sliding_window=150)
    yield make("mistral: none", t.MistralForCausalLM, t.MistralConfig, 40, sliding_window=None)
    yield make("gemma 3: windows and full layers", t.Gemma3ForCausalLM, t.Gemma3TextConfig, 60,
               gain_offset=0.0, num_hidden_layers=3, sliding_window=24, query_pre_attn_scalar=24,
               layer_types=["sliding_attention", "sliding_attention", "full_attention"],
               rope_parameters={"sliding_attention": rope(),
                                "full_attention": rope("linear", 1000000.0, factor=8.0)})


SWITCHES = {
    "num_local_experts": (1, 2, 3, 8, 16),
    "num_experts_per_tok": (1, 2),
    "interleave_moe_layer_step": (1, 2, 3),
    "no_rope_layers": ((1, 1, 1, 0), (1, 0), (0, 1, 0), (1, 1, 0, 1, 1), (0, 0), (1, 1)),
    "use_qk_norm": (True, False),
    "attn_temperature_tuning": (True, False),
    "attention_bias": (False, True),
    "rope_parameters": ("plain", "llama3"),
    "attention_chunk_size": (16, 17, 48, 64, 128, 130),
}


def mixed_switches():
    """Yields switches such that every pair of values of two of them is together somewhere, but for
    two experts a token out of one: of 60 random drawings each time the one with most new pairs."""
    draw = random.Random(11)
    names = list(SWITCHES)
    missing = {(a, x, b, y) for a, b in itertools.combinations(names, 2)
               for x in SWITCHES[a] for y in SWITCHES[b]}
    missing.discard(("num_local_experts", 1, "num_experts_per_tok", 2))

    def pairs(switches):
        return {(a, switches[a], b, switches[b]) for a, b in itertools.combinations(names, 2)}
    while missing:
        drawn = [{name: draw.choice(values) for name, values in SWITCHES.items()}
                 for _ in range(60)]
        drawn = [d for d in drawn if d["num_experts_per_tok"] <= d["num_local_experts"]]
        best = max(drawn, key=lambda d: len(pairs(d) & missing))
        if pairs(best) & missing:
            missing -= pairs(best)
            yield best


def llama4_borders(name, switches, tokens):
    base = dict(SMALL, intermediate_size=INNER, intermediate_size_mlp=INNER_DENSE, floor_scale=32,
                attn_scale=0.5, max_position_embeddings=tokens + 1)
    config = transformers.Llama4TextConfig(**dict(base, **switches))
    chunk = switches["attention_chunk_size"]
    return case("llama4 " + name, transformers.Llama4ForCausalLM, config, tokens, False,
                borders=list(range(chunk, tokens, chunk)))


def border_cases():
    for number, mixed in enumerate(mixed_switches(), start=1):
        layers = list(mixed["no_rope_layers"])
        rope_kind = rope() if mixed["rope_parameters"] == "plain" else llama3(16.0, 1.0, 1.0, 64)
        switches = dict(mixed, no_rope_layers=layers, num_hidden_layers=len(layers),
                        rope_parameters=rope_kind)
        chunk = mixed["attention_chunk_size"]
        yield llama4_borders(f"mixed switches {number}, chunks of {chunk}", switches,
                             (3 if chunk < 100 else 2) * chunk + 3)
    for chunk, chunks in ((512, 2), (1024, 2), (2048, 1), (4096, 1), (8192, 1)):
        switches = {"attention_chunk_size": chunk, "no_rope_layers": [1, 0],
                    "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1,
                    "num_local_experts": 2, "num_experts_per_tok": 1, "floor_scale": 512,
                    "rope_parameters": llama3(16.0, 1.0, 1.0, 64)}
        yield llama4_borders(f"chunks of {chunk}", switches, chunks * chunk + 3)
    t = transformers
    base = dict(SMALL, num_hidden_layers=2, intermediate_size=INNER_DENSE, rope_parameters=rope())
    for window in (1, 16, 127, 128, 129, 200):
        config = t.MistralConfig(**dict(base, sliding_window=window))
        yield case(f"mistral: a window of {window}", t.MistralForCausalLM, config, 400, False,
                   borders=[window, 128, 128 + window, 256, 384])
    for window in (17, 128, 150):
        config = t.Gemma3TextConfig(**dict(
            base, num_hidden_layers=3, sliding_window=window, query_pre_attn_scalar=24,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            rope_parameters={"sliding_attention": rope(),
                             "full_attention": rope("linear", 1000000.0, factor=8.0)}))
        yield case(f"gemma 3: a window of {window}", t.Gemma3ForCausalLM, config, 400, False,
                   gain_offset=0.0, borders=[window, 128, 128 + window, 256, 384])


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    every = "--every" in sys.argv
    kind = "_device" if DEVICE else "_borders" if "--borders" in sys.argv else ""
    path = arguments[0] if arguments else os.path.join(HERE, f"families{kind}.jsonl")
    cases = border_cases() if kind == "_borders" else itertools.chain(llama4_cases(every),
                                                                      plain_cases(every))
    torch.set_num_threads(1)
    with open(path, "w", encoding="utf-8") as out:
        for record in cases:
            out.write(json.dumps(record, separators=(",", ":")) + "\n")
            print(record["name"], len(record["ids"]), "tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
