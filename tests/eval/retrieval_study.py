#!/usr/bin/env python3
"""How a model with a short context should choose the blocks it attends to out of a long corpus.

  apt-get download ...; tests/eval/retrieval_study_text.py --packages F --out TEXTS
  python3 -m venv V && V/bin/pip install torch transformers accelerate gguf numpy
  V/bin/python tests/eval/retrieval_study.py --model M.gguf --texts TEXTS --lengths 8,32,128 \\
      --parts calibrate,recall,answers,windows,citations --out result.json

The corpus is held as the daemon holds a segmented one: documents in windows behind the preamble,
keys un-rotated in blocks of 128 tokens. Parts: which heads find the answer's block (calibrate);
recall of blocks (recall); right answers by what is attended (answers); the same for other windows
(windows); whether the heads' attention names the source (citations). CUDA if there: K and V in 16
bit.
"""

import argparse
import json
import os
import random
import re
import sys
import time

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from study import lexical, retrieval_choice, retrieval_tasks
from study import retrieval_model as models
from study import retrieval_scores as scores

STEPS = 40              # tokens of an answer
ROW_TOKENS = 250000     # tokens of context in one batch of answers


def parse():
    parser = argparse.ArgumentParser(description="choice of blocks out of a long corpus")
    parser.add_argument("--model", required=True, help="GGUF file with a ChatML template")
    parser.add_argument("--texts", required=True, help="folder of retrieval_study_text.py")
    parser.add_argument("--lengths", default="8,32,128", help="Ki tokens a test corpus")
    parser.add_argument("--parts", default="calibrate,recall,answers")
    parser.add_argument("--heads", default="18.6,18.7", help="retrieval heads, LAYER.HEAD")
    parser.add_argument("--semantic", default="9.2", help="heads of the second channel")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--corpora", default=".*", help="regular expression over their names")
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def head_name(model, head):
    return f"{head // model.H}.{head % model.H}"


def head_numbers(model, names):
    return [int(n.split(".")[0]) * model.H + int(n.split(".")[1]) for n in names.split(",") if n]


def by_task(scene, values):
    """Means over each task's questions."""
    return {task: round(sum(values[i] for i in rows) / len(rows), 3)
            for task, rows in scene.tasks.items()}


def recall_row(scene, table):
    rank = scores.ranks(table, scene.gold)
    return {task: [round(x, 3) for x in scores.recall(rank[rows]).tolist()]
            for task, rows in scene.tasks.items()}


def all_heads(scene, rotated):
    """RETURNS {variant: [B, all heads, blocks]}."""
    parts = {}
    for layer in range(scene.model.L):
        reduced = scores.reduce_blocks(scene.model, scene.store.k[layer], scene.queries.q[layer],
                                       scene.blocks, rotated)
        for name, table in scores.variants(*reduced, scene.queries).items():
            parts.setdefault(name, []).append(table)
    return {name: torch.cat(layers, 1) for name, layers in parts.items()}


def calibrate(model, scenes, report):
    """Ranks every head by the mean reciprocal rank of the answer's block, variant by variant."""
    values, names = {}, []
    for scene in scenes:
        names += list(scene.tasks)
        for rotated in (False, True):
            for name, table in all_heads(scene, rotated).items():
                rank = scores.ranks(table.transpose(0, 1), scene.gold)
                for rows in scene.tasks.values():
                    values.setdefault((name, rotated), []).append(scores.reciprocal(rank[:, rows]))
    for (name, rotated), rows in values.items():
        table = torch.stack(rows)
        best = {head_name(model, h): [round(x, 2) for x in table[:, h].tolist()]
                for h in table.mean(0).argsort(descending=True)[:12].tolist()}
        report[name + (" rotated" if rotated else "")] = {"tasks": names, "heads": best}


class Chooser:
    """The recipe: scores of the blocks and the hits in the best ones."""

    def __init__(self, scene, heads, semantic):
        self.plain = scene.lexical(lexical.words, 1.2, 0.75)
        self.pairs = scene.lexical(lexical.parts_and_pairs, 0.4, 0.2)
        self.heads = scene.heads(heads)
        self.fused = self.heads + retrieval_choice.LEXICAL_WEIGHT * scores.z(self.pairs)
        self.both = self.fused
        if semantic:
            self.both = torch.maximum(self.fused, retrieval_choice.SEMANTIC_WEIGHT *
                                      scene.semantic(semantic))
        most = min(16, len(scene.blocks))
        self.ranked = self.fused.argsort(-1, descending=True)[:, :most].tolist()
        self.ranked_plain = self.plain.argsort(-1, descending=True)[:, :most].tolist()
        self.hits = scene.hits(heads, self.ranked)


def recall(scene, chooser, heads):
    """Block recall at 1, 4, 16, 48 of every score, and of the index in few bits."""
    rows = {"bm25": recall_row(scene, chooser.plain), "lexical": recall_row(scene, chooser.pairs),
            "heads": recall_row(scene, chooser.heads), "fused": recall_row(scene, chooser.fused),
            "fused with semantic": recall_row(scene, chooser.both),
            "bm25 without margin": recall_row(scene, scene.lexical(lexical.words, 1.2, 0.75, 0))}
    model = scene.model
    for bits, mean, hadamard in ((4, False, False), (4, False, True), (4, True, True),
                                 (3, True, True), (2, True, True)):
        keys = {}
        for head in heads:
            layer, h = divmod(head, model.H)
            group = h // (model.H // model.G)
            keys.setdefault(layer, scene.store.k[layer].clone())
            keys[layer][group] = retrieval_choice.quantized(scene.store.k[layer][group], bits, mean,
                                                            hadamard)
        table = scene.heads(heads, keys)
        name = f"{bits} bit" + (", mean" if mean else "") + (", Hadamard" if hadamard else "")
        rows["heads, " + name] = recall_row(scene, table)
        rows["fused, " + name] = recall_row(scene, table + retrieval_choice.LEXICAL_WEIGHT *
                                            scores.z(chooser.pairs))
    return rows


def is_right(question, text):
    plain = re.sub(r"(?<=\d),(?=\d)", "", text.lower())
    return bool(re.search(r"(?<![0-9a-z])" + re.escape(question.answer.lower()) + r"(?![0-9a-z])",
                          plain))


def run(scene, contexts, suffixes, make):
    """Greedy answers of every row, in batches of like length. RETURNS whether each is right."""
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    texts, at = [None] * len(contexts), 0
    while at < len(order):
        count = len(order) - at
        while count > 1 and count * (len(contexts[order[at + count - 1]]) + 100) > ROW_TOKENS:
            count = min(count - 1, count * 9 // 10)
        part = order[at:at + count]
        at += count
        answer = models.Answer(scene.model, make([contexts[i] for i in part]),
                               [suffixes[i] for i in part], STEPS, scene.stops())
        for i, ids in zip(part, answer.answers()):
            texts[i] = scene.chat.tokenizer.decode(ids)
    return [is_right(q, t) for q, t in zip(scene.questions, texts)]


def stored(scene):
    return lambda rows: models.Context.gather(scene.model, scene.store, scene.prefix, rows)


def reread(scene):
    """Contexts of text: computed anew behind the preamble, as Micro-RAG and full attention do."""
    return lambda rows: models.Context.read(scene.model, [scene.chat.prefix + r for r in rows])


def contexts_of(scene, chooser):
    """(name, tokens in the store) of what is attended to."""
    ranked, hits = chooser.ranked, chooser.hits
    yield "right blocks", [scene.needle(q) for q in scene.questions]
    for n in (1, 2, 4, 8, 16):
        yield f"blocks {n}", [scene.whole_blocks(r[:n]) for r in ranked]
    for order in ("best first", "corpus"):
        yield f"blocks 4 {order}", [scene.whole_blocks(r[:4], order) for r in ranked]
    for side, counts in ((24, (4,)), (32, (1, 2, 3, 4, 6, 8)), (64, (1, 2, 4))):
        for n in counts:
            yield f"spans {n} x {2 * side}", [scene.spans(r[:n], h[:n], side)
                                              for r, h in zip(ranked, hits)]


def answers(scene, chooser, small=False):
    """Right answers by what is attended to. small: the recipe's rows alone."""
    rows = {}

    def add(name, contexts, right, more=0):
        tokens = sum(map(len, contexts)) / len(contexts) + more
        rows[name] = {"tokens": round(tokens), "right": by_task(scene, right)}
    for name, contexts in contexts_of(scene, chooser):
        if not small or name in ("right blocks", "blocks 4", "spans 1 x 64", "spans 4 x 64"):
            add(name, contexts, run(scene, contexts, scene.suffixes, stored(scene)))
    if small:
        return rows
    for n in (1, 2, 4):
        best = [scene.spans(r[:1], h[:1], 32) for r, h in zip(chooser.ranked, chooser.hits)]
        rest = [[t for t in scene.spans(r[:n], h[:n], 32) if t not in set(b)]
                for r, h, b in zip(chooser.ranked, chooser.hits, best)]
        suffixes = [scene.text(b) + s for b, s in zip(best, scene.suffixes)]
        add(f"spans {n} x 64, best recomputed", rest,
            run(scene, rest, suffixes, stored(scene)), 64)
    random_ = random.Random(5)
    texts = {f"Micro-RAG {n}": [scene.whole_blocks(r[:n]) for r in chooser.ranked_plain]
             for n in (1, 2, 4, 8, 16)}
    for size in (2000, 4000, 7900):
        texts[f"full attention {size}"] = [scene.surrounding(q, size, random_)
                                           for q in scene.questions]
    texts["last 7900"] = [range(max(0, scene.blocks.tokens - 7900), scene.blocks.tokens)
                          for _ in scene.questions]
    for name, contexts in texts.items():
        contexts = [scene.text(c) for c in contexts]
        add(name, contexts, run(scene, contexts, scene.suffixes, reread(scene)))
    return rows


def citations(scene, chooser, heads, blocks=4):
    """How often the needle's block has most of the heads' attention over the answer's tokens, when
    it is attended to: of all answers and of the right ones, best last and in random order."""
    random_, rows = random.Random(3), {}
    gold = scene.gold.tolist()
    for order in ("best last", "random"):
        chosen = [r[:blocks][::-1] for r in chooser.ranked]
        if order == "random":
            for row in chosen:
                random_.shuffle(row)
        contexts = [[t for b in row for t in scene.block_tokens(b)] for row in chosen]
        answer = models.Answer(scene.model, stored(scene)(contexts), scene.suffixes, STEPS,
                               scene.stops(), mass=True)
        found = []
        for i, (row, ids) in enumerate(zip(chosen, answer.answers())):
            if gold[i] not in row:
                continue
            mass = answer.mass[i].float().flatten(0, 1)[heads].sum(0)
            at, shares = len(scene.chat.prefix), []
            for block in row:
                shares.append(mass[at:at + scene.blocks.counts[block]].sum().item())
                at += scene.blocks.counts[block]
            right = is_right(scene.questions[i], scene.chat.tokenizer.decode(ids))
            found.append((right, shares.index(max(shares)) == row.index(gold[i])))
        of_right = [first for right, first in found if right]
        rows[order] = {"found": len(found), "first": sum(first for _, first in found),
                       "right": len(of_right), "first of right": sum(of_right)}
    return rows


def main():
    arguments = parse()
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.Model(arguments.model, device)
    folder, name = os.path.split(os.path.abspath(arguments.model))
    fast = AutoTokenizer.from_pretrained(folder, gguf_file=name).backend_tokenizer
    chat = retrieval_choice.Chat(Tokenizer.from_str(fast.to_str()))
    texts = {}
    for file in sorted(os.listdir(arguments.texts)):
        with open(os.path.join(arguments.texts, file), encoding="utf-8") as text:
            texts[os.path.splitext(file)[0]] = text.read()
    study(arguments, model, chat, texts)
    return 0


def study(arguments, model, chat, texts):
    parts = arguments.parts.split(",")
    heads = head_numbers(model, arguments.heads)
    semantic = head_numbers(model, arguments.semantic)
    result = {"model": os.path.basename(arguments.model), "heads": arguments.heads,
              "semantic": arguments.semantic, "window": arguments.window,
              "overlap": arguments.overlap, "calibrate": {}, "recall": {}, "answers": {},
              "windows": {}, "citations": {}}
    started = time.time()

    def save(what):
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
        print(f"{time.time() - started:6.1f} s  {what}", flush=True)

    def scene_of(corpus, window=arguments.window, overlap=arguments.overlap):
        return retrieval_choice.Scene(model, chat, corpus, window, overlap)
    calibration = list(retrieval_tasks.calibration_corpora(chat.tokenizer, texts))
    if "calibrate" in parts:
        calibrate(model, (scene_of(c) for c in calibration), result["calibrate"])
        save("calibrate")
    corpora = calibration + [c for length in map(int, arguments.lengths.split(","))
                             for c in retrieval_tasks.test_corpora(chat.tokenizer, texts, length)]
    for corpus in corpora:
        if not re.fullmatch(arguments.corpora, corpus.name):
            continue
        scene = scene_of(corpus)
        chooser = Chooser(scene, heads, semantic)
        if "recall" in parts:
            result["recall"][corpus.name] = recall(scene, chooser, heads)
        if "answers" in parts:
            result["answers"][corpus.name] = answers(scene, chooser)
        if "citations" in parts:
            result["citations"][corpus.name] = citations(scene, chooser, heads)
        if "windows" in parts:
            for window, overlap in ((512, 0), (512, 128), (1024, 0), (2048, 0), (2048, 128)):
                other = scene_of(corpus, window, overlap)
                result["windows"][f"{corpus.name} {window}/{overlap}"] = answers(
                    other, Chooser(other, heads, semantic), True)
        save(corpus.name)


if __name__ == "__main__":
    sys.exit(main())
