#!/usr/bin/env python3
"""One KV cache type of llama.cpp over a text, inside llama-cpp-python's own Python.

Does what llama-perplexity does (logit_rows.py has its base file and its figures): a window of ctx
tokens at a time in a cleared cache, the whole window one batch, so that every token is read back in
the cache's type; the second half scored. compare_kv_types starts it and reads the JSON it prints.
"""

import argparse
import ctypes
import json
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

GGML_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
MICRO_BATCH = 512  # llama-perplexity's default
ROWS = 64          # logits taken at once


class Peer:
    """A model and one context of llama.cpp. `log` holds what it said while both were made."""

    def __init__(self, model, context_tokens, kv_type, threads):
        import llama_cpp as api
        self.api, self.log = api, []
        self.callback = api.llama_log_callback(
            lambda level, text, data: self.log.append(text.decode("utf-8", "replace")))
        api.llama_log_set(self.callback, None)
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp could not load {model}: {''.join(self.log)[-400:]}")
        self.vocabulary = api.llama_model_get_vocab(self.model)
        self.tokens = api.llama_vocab_n_tokens(self.vocabulary)
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = context_tokens
        params.n_ubatch = min(MICRO_BATCH, context_tokens)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = GGML_TYPES[kv_type]
        params.flash_attn_type = 1
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"llama.cpp made no {kv_type} context: {''.join(self.log)[-400:]}")
        self.batch = api.llama_batch_init(context_tokens, 0, 1)

    def rotated(self):
        """Whether keys and values pass through a Hadamard matrix, by llama.cpp's own word."""
        found = dict(re.findall(r"attn_rot_([kv]) = (\d)", "".join(self.log)))
        return {"k": found.get("k") == "1", "v": found.get("v") == "1"} if found else None

    def begin_token(self):
        wanted = self.api.llama_vocab_get_add_bos(self.vocabulary)
        return self.api.llama_vocab_bos(self.vocabulary) if wanted else None

    def ids(self, path):
        with open(path, "rb") as file:
            text = file.read()
        text = text[:-1] if text.endswith(b"\n") else text
        ids = (ctypes.c_int32 * (len(text) + 2))()
        count = self.api.llama_tokenize(self.vocabulary, text, len(text), ids, len(ids), True,
                                        False)
        if count < 0:
            sys.exit(f"llama_tokenize failed with {count}")
        return list(ids[:count])

    def window(self, tokens):
        """Yields (first row, float32 logits [rows, vocabulary]) of the scored rows."""
        import numpy
        import logit_rows
        context = len(tokens)
        first = logit_rows.first_scored(context)
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        self.batch.n_tokens = context
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = int(token), i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = 1 if i >= first else 0
        if self.begin_token() is not None:
            self.batch.token[0] = self.begin_token()
        status = self.api.llama_decode(self.context, self.batch)
        if status != 0:
            sys.exit(f"llama_decode failed with {status}")
        logits = numpy.ctypeslib.as_array(self.api.llama_get_logits(self.context),
                                          (context - first, self.tokens))
        for row in range(0, logit_rows.scored(context), ROWS):
            yield row, logits[row:min(row + ROWS, logit_rows.scored(context))]


def windows_of(peer, arguments):
    """RETURNS the tokens [windows][ctx] and the base, if there is one to compare with."""
    import logit_rows
    if arguments.base:
        base = logit_rows.BaseReader(arguments.base)
        if (base.context, base.vocabulary) != (arguments.ctx, peer.tokens):
            sys.exit(f"{arguments.base} is of windows of {base.context} and a vocabulary of "
                     f"{base.vocabulary}, not {arguments.ctx} and {peer.tokens}")
        return base.tokens[:arguments.windows], base
    ids = peer.ids(arguments.text)
    count = min(arguments.windows, len(ids) // arguments.ctx)
    if len(ids) < 2 * arguments.ctx:
        sys.exit(f"{arguments.text} has {len(ids)} tokens; two windows of {arguments.ctx} are "
                 "needed")
    return [ids[w * arguments.ctx:(w + 1) * arguments.ctx] for w in range(count)], None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--type", choices=sorted(GGML_TYPES), default="f16")
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--text", help="with --make-base")
    parser.add_argument("--make-base", metavar="FILE")
    parser.add_argument("--base", metavar="FILE")
    arguments = parser.parse_args()
    if bool(arguments.base) == bool(arguments.make_base and arguments.text):
        parser.error("give --text and --make-base, or --base")

    import logit_rows
    import numpy
    logit_rows.check(os.path.join(os.path.dirname(HERE), "golden"))
    peer = Peer(arguments.model, arguments.ctx, arguments.type, arguments.threads)
    windows, base = windows_of(peer, arguments)
    writer = None
    if arguments.make_base:
        flat = [token for window in windows for token in window]
        writer = logit_rows.BaseWriter(arguments.make_base, arguments.ctx, peer.tokens, flat)
    divergence = logit_rows.Divergence()
    started = time.perf_counter()
    for w, window in enumerate(windows):
        targets = numpy.asarray(window)[logit_rows.first_scored(arguments.ctx) + 1:]
        for row, logits in peer.window(window):
            words = base.rows[w, row:row + len(logits)] if base else logit_rows.encode(logits)
            divergence.add(logits, words, targets[row:row + len(logits)])
            if writer:
                writer.add(logits)
        print(f"llama.cpp {arguments.type}: window {w + 1}/{len(windows)}, "
              f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if writer:
        writer.close()
    json.dump({"type": arguments.type, "windows": len(windows), "rotated": peer.rotated(),
               **divergence.report()}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
