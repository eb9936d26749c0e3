#!/usr/bin/env python3
"""Answers of llama.cpp to prompts of corpus-eval recall, inside llama-cpp-python's own Python.

A text is computed once, each question behind it, the most likely token each time, keys and values
in 16 bits. Reads the lines of --prompts, prints the answers, a list a line. compare_recall starts
it.
"""

import argparse
import ctypes
import json
import os
import sys

import kv_type_runner


class Reader:
    def __init__(self, arguments):
        self.peer = kv_type_runner.Peer(arguments.model, arguments.ctx, "f16", arguments.threads)
        self.api = self.peer.api
        self.memory = self.api.llama_get_memory(self.peer.context)

    def read(self, tokens, first):
        """Computes tokens at positions from `first` on. RETURNS the most likely one after them."""
        batch = self.peer.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, first + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = 1 if i + 1 == len(tokens) else 0
        status = self.api.llama_decode(self.peer.context, batch)
        if status != 0:
            sys.exit(f"llama_decode failed with {status}")
        import numpy
        row = self.api.llama_get_logits_ith(self.peer.context, len(tokens) - 1)
        return int(numpy.argmax(numpy.ctypeslib.as_array(row, (self.peer.tokens,))))

    def text_of(self, tokens):
        out = b""
        for token in tokens:
            piece = ctypes.create_string_buffer(256)
            size = self.api.llama_token_to_piece(self.peer.vocabulary, token, piece, 256, 0, False)
            out += piece.raw[:max(size, 0)]
        return out.decode("utf-8", "replace")

    def answer(self, haystack_tokens, question):
        self.api.llama_memory_seq_rm(self.memory, 0, haystack_tokens, -1)
        token = self.read(question["ids"], haystack_tokens)
        answer, place = [], haystack_tokens + len(question["ids"])
        while len(answer) < question["answer_tokens"]:
            if self.api.llama_vocab_is_eog(self.peer.vocabulary, token):
                break
            answer.append(token)
            token = self.read([token], place)
            place += 1
        return self.text_of(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--ctx", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    reader = Reader(arguments)
    with open(arguments.prompts, encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            reader.api.llama_memory_clear(reader.memory, True)
            reader.read(case["haystack"], 0)
            answers = [reader.answer(len(case["haystack"]), q) for q in case["questions"]]
            print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
