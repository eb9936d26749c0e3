#!/usr/bin/env python3
"""Times one peer once, inside that peer's own Python; compare_peers starts it.

Prefill and decode go through the peer's C API as its own llama-bench does: batches of 512, flash
attention on, every weight touched once before timing. The tokens are real text, given as ids.
Prints one JSON object: {"pp512": tokens per second, "tg64@8192": ..., ...}. With --chunk 256 there
is also "pp256@7936" for depth 8192, the last 256 tokens before it; llama.cpp's cache before those
is filled 512 tokens at a time, each blind to the others, as its quantized caches take minutes for
8K tokens otherwise. What is timed sees all of it.
"""

import argparse
import json
import sys
import time

BATCH_TOKENS = 512
GGML_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}


class LlamaCpp:
    """llama.cpp through llama-cpp-python."""

    def __init__(self, model, threads, context_tokens, kv_type, repack):
        import llama_cpp as api
        self.api = api
        api.llama_log_set(_silent(api.llama_log_callback), None)
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(model.encode(), params)
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context_tokens, BATCH_TOKENS, BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = GGML_TYPES[kv_type]
        params.n_seq_max, params.kv_unified = 2, True  # one beside the other, for fill()
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 1
        else:
            params.flash_attn = True
        self.context = api.llama_init_from_model(self.model, params)

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def fill(self, batch, ids, count):
        """As if ids[:count] had been decoded, but that no batch has seen another."""
        memory = self.api.llama_get_memory(self.context)
        for start in range(0, count, BATCH_TOKENS):
            decode(self, batch, ids, start, min(BATCH_TOKENS, count - start), sequence=1)
            self.api.llama_memory_seq_cp(memory, 1, 0, -1, -1)
            self.api.llama_memory_seq_rm(memory, 1, -1, -1)


class IkLlamaCpp:
    """ik_llama.cpp through the ctypes layer of ik-llama-cpp-python."""

    def __init__(self, model, threads, context_tokens, kv_type, repack):
        from ik_llama_cpp import _ctypes_api as api
        self.api = api
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.repack_tensors = repack
        params.use_mmap = not repack
        self.model = api.llama_model_load_from_file(model.encode(), params)
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context_tokens, BATCH_TOKENS, BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = GGML_TYPES[kv_type]
        params.flash_attn = True
        self.context = api.llama_init_from_model(self.model, params)

    def clear(self):
        self.api.llama_kv_cache_clear(self.context)


_kept = []


def _silent(kind):
    callback = kind(lambda *_: None)
    _kept.append(callback)
    return callback


def decode(peer, batch, ids, first, count, sequence=0):
    """Feeds ids[first:first+count] at their positions; logits for the last token only."""
    for start in range(first, first + count, BATCH_TOKENS):
        chunk = ids[start:min(start + BATCH_TOKENS, first + count)]
        batch.n_tokens = len(chunk)
        for i, token in enumerate(chunk):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = 1 if i + 1 == len(chunk) else 0
        status = peer.api.llama_decode(peer.context, batch)
        if status != 0:
            sys.exit(f"llama_decode failed with {status} at token {start}")
    # Reading the logits waits for the computation.
    return peer.api.llama_get_logits_ith(peer.context, -1)[0]


def timed_prefill(peer, batch, ids, count):
    peer.clear()
    started = time.perf_counter()
    decode(peer, batch, ids, 0, count)
    return count / (time.perf_counter() - started)


def timed_decode(peer, batch, ids, depth, count):
    """The peer's cache already holds ids[:depth]; single tokens follow, real ones."""
    started = time.perf_counter()
    for i in range(count):
        decode(peer, batch, ids, depth + i, 1)
    return count / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", choices=("llama", "ik"), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--kv", default="f16", choices=sorted(GGML_TYPES))
    parser.add_argument("--repack", action="store_true")
    parser.add_argument("--prefill", type=int, nargs="*", default=[])
    parser.add_argument("--decode-depths", type=int, nargs="*", default=[])
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=0)
    arguments = parser.parse_args()

    with open(arguments.ids, encoding="ascii") as file:
        ids = [int(line) for line in file]
    deepest = max(arguments.prefill + [d + arguments.decode_tokens
                                       for d in arguments.decode_depths] + [BATCH_TOKENS])
    if len(ids) < deepest:
        sys.exit(f"{arguments.ids} holds {len(ids)} tokens, {deepest} are needed")
    kind = LlamaCpp if arguments.peer == "llama" else IkLlamaCpp
    peer = kind(arguments.model, arguments.threads, (deepest + 255) // 256 * 256, arguments.kv,
                arguments.repack)
    if not peer.model or not peer.context:
        sys.exit(f"{arguments.peer} could not load {arguments.model}")
    batch = peer.api.llama_batch_init(BATCH_TOKENS, 0, 1)

    decode(peer, batch, ids, 0, 64)  # first touch of every weight
    result = {}
    for count in sorted(arguments.prefill):
        result[f"pp{count}"] = timed_prefill(peer, batch, ids, count)
        if count in arguments.decode_depths:  # the cache is at this depth already
            result[f"tg{arguments.decode_tokens}@{count}"] = timed_decode(
                peer, batch, ids, count, arguments.decode_tokens)
    for depth in arguments.decode_depths:
        if depth not in arguments.prefill:
            chunk = min(arguments.chunk, depth)
            peer.clear()
            if chunk and hasattr(peer, "fill"):
                peer.fill(batch, ids, depth - chunk)
            elif depth > chunk:
                decode(peer, batch, ids, 0, depth - chunk)
            if chunk:
                started = time.perf_counter()
                decode(peer, batch, ids, depth - chunk, chunk)
                result[f"pp{chunk}@{depth - chunk}"] = chunk / (time.perf_counter() - started)
            result[f"tg{arguments.decode_tokens}@{depth}"] = timed_decode(
                peer, batch, ids, depth, arguments.decode_tokens)
    json.dump(result, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
