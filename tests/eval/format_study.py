#!/usr/bin/env python3
"""Which code for keys and values loses least at so many bits: recipes against float32 KV.

  python3 -m venv V && V/bin/pip install torch transformers accelerate gguf numpy
  corpus-eval tokenize --model M.gguf --file TEXTS/prose.txt > prose.ids     (and code, calibration)
  V/bin/python tests/eval/format_study.py --model M.gguf --ids prose=prose.ids \\
      --ids code=code.ids --calibration calibration.ids --ctx 1024 --windows 8 --out result.json

Weights are dequantized to float32; the whole KV is read back through the recipe (study/hook.py);
the second half of each window is scored, as llama-perplexity does. Texts: format_study_text.py.
Uses CUDA where there is one. --recipes REGEX takes some, --seconds N stops in time.
"""

import argparse
import json
import math
import re
import sys
import time

import torch

from study import bases, formats, hook, hot, recipes, recipes_cq


def parse():
    parser = argparse.ArgumentParser(description="KV formats against float32 KV")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--ids", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--calibration", required=True, help="token ids, one a line")
    parser.add_argument("--calibration-tokens", type=int, default=32768)
    parser.add_argument("--ctx", default="1024", help="tokens a window; several: 1024,2048")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--begin", type=int, help="token at the start of each window (Gemma: 2)")
    parser.add_argument("--recipes", default=".*", help="regular expression over their names")
    parser.add_argument("--list", choices=("cq", "before"), default="cq",
                        help="the tile formats, or the recipes that led to them")
    parser.add_argument("--recipe-file", help="JSON list of recipes instead, or a run's result")
    parser.add_argument("--fisher", action="store_true", help="gradients, for recipes that ask")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def read_ids(path, windows, ctx, device, begin, tokenizer):
    """Token ids, one a line, or a .txt file that the model's own tokenizer takes."""
    with open(path, encoding="utf-8") as file:
        if path.endswith(".txt"):
            ids = tokenizer()(file.read().rstrip("\n"))
        else:
            ids = [int(line) for line in file]
    windows = min(windows, len(ids) // ctx)
    ids = torch.tensor(ids[:windows * ctx], device=device).reshape(windows, ctx)
    if begin is not None:
        ids[:, 0] = begin
    return ids


class Scorer:
    """Windows of one text and what the model says of them with KV in float32."""

    def __init__(self, model, ids):
        self.model, self.ids, self.ctx = model, ids, ids.shape[1]
        self.first = self.ctx // 2
        self.base = []  # [scored, vocabulary] a window
        nll = 0.0
        for i in range(len(ids)):
            hidden = model.hidden(ids[i:i + 1])[:, self.first:-1]
            self.base.append(torch.log_softmax(model.logits(hidden)[0], -1))
            nll -= self.base[-1].gather(1, ids[i, self.first + 1:, None]).double().mean().item()
        self.perplexity = math.exp(nll / len(ids))

    def score(self):
        klds, deltas, same = [], [], []
        batch = max(1, 16384 // self.ctx)
        for begin in range(0, len(self.ids), batch):
            hidden = self.model.hidden(self.ids[begin:begin + batch])[:, self.first:-1]
            for j in range(hidden.shape[0]):
                logits = torch.log_softmax(self.model.logits(hidden[j]), -1)
                base = self.base[begin + j]
                target = self.ids[begin + j, self.first + 1:, None]
                klds.append((base.exp() * (base - logits)).sum(-1))
                deltas.append((base - logits).gather(1, target)[:, 0])
                same.append(base.argmax(-1) == logits.argmax(-1))
        kld, delta, same = torch.cat(klds), torch.cat(deltas), torch.cat(same)
        n = len(kld)
        return {"mean_kld": kld.mean().item(), "kld_error": kld.std().item() / math.sqrt(n),
                "median_kld": kld.median().item(),
                "kld_99": kld.double().quantile(0.99).item(),
                "delta_nll": delta.mean().item(),
                "delta_nll_error": delta.std().item() / math.sqrt(n),
                "same_top": same.float().mean().item(), "scored": n}


def widths_by_kld(model, calibration, recipe, choices):
    """Greedy widths per layer and side at the recipe's mean width: first the mean KLD that each
    (layer, side) costs alone at each width, then bits move where they save the most."""
    mean = recipe["mean_bits"]
    ids = calibration.ids[::max(1, len(calibration.ids) // 6)][:6, :512]
    scorer = Scorer(model, ids)
    cost = {}
    for width in choices:
        base = {"k": dict(recipe["k"], bits=width), "v": dict(recipe["v"], bits=width)}
        full = formats.Format(model, calibration, dict(base, sinks=4))
        for layer in range(model.layers):
            for side in "kv":
                hook.CACHE.format = OneSide(full, layer, side)
                cost[f"{side}{layer}", width] = max(scorer.score()["mean_kld"], 1e-9)
    hook.CACHE.format = None
    names = [f"{side}{layer}" for layer in range(model.layers) for side in "kv"]
    widths = {name: choices[0] for name in names}
    for _ in range(round((mean - choices[0]) * len(names))):
        def gain(name):
            w = widths[name]
            return cost[name, w] - cost[name, w + 1] if w + 1 in choices else -1
        widths[max(names, key=gain)] += 1
    return widths


class OneSide:
    """A format for one layer's keys or values, everything else exact."""

    def __init__(self, full, layer, side):
        self.full, self.layer, self.side = full, layer, side
        self.sinks, self.tail = full.sinks, 0

    def keys(self, layer, key):
        return self.full.keys(layer, key) if (layer, "k") == (self.layer, self.side) else key

    def values(self, layer, value):
        return self.full.values(layer, value) if (layer, "v") == (self.layer, self.side) else value

    def score_bias(self, *_):
        return None


def evaluate(model, calibration, recipe, scorers):
    """RETURNS one recipe's rows, one a context and number of sinks, and the recipe, with its widths
    where those are measured. scorers[ctx][text]."""
    started, rows = time.time(), []
    widths = None
    if "mean_bits" in recipe:
        widths = widths_by_kld(model, calibration, recipe, recipe["choices"])
        recipe = dict(recipe, widths=widths)
    sinks = recipe.get("sinks", 4)
    contexts = [c for c in scorers if c in recipe.get("contexts", scorers)]
    kind = hot.HotFormat if "hot" in recipe else formats.Format
    form = kind(model, calibration, recipe)
    for ctx in contexts:
        for form.sinks in sinks if isinstance(sinks, (list, tuple)) else [sinks]:
            row = {"name": recipe["name"], "bits": form.bits_per_element(), "ctx": ctx,
                   "sinks": form.sinks, "tail": form.tail}
            hook.CACHE.format = form
            for name, scorer in scorers[ctx].items():
                row[name] = scorer.score()
            hook.CACHE.format = None
            row["seconds"] = time.time() - started
            rows.append(row)
            started = time.time()
    return rows, {k: v for k, v in recipe.items() if k != "name"}


def main():
    arguments = parse()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    started = time.time()
    model = hook.StudyModel(arguments.model, device)
    print(f"model: {time.time() - started:.1f} s", flush=True)
    contexts = [int(c) for c in arguments.ctx.split(",")]
    window = min(min(contexts), 1024)
    more = (device, arguments.begin, model.tokenizer)
    ids = read_ids(arguments.calibration, arguments.calibration_tokens // window, window, *more)
    calibration = bases.Calibration(model, ids)
    if arguments.fisher:
        calibration.compute_gradients()
    print(f"calibration: {time.time() - started:.1f} s", flush=True)
    result = {"model": arguments.model.rsplit("/", 1)[-1],
              "torch": torch.__version__, "calibration_tokens": ids.numel(),
              "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
              "perplexity": {}, "recipes": {}, "rows": []}
    with torch.no_grad():
        scorers = {}
        for ctx in contexts:
            scorers[ctx] = {}
            for item in arguments.ids:
                name, path = item.split("=", 1)
                text = read_ids(path, arguments.windows, ctx, *more)
                scorers[ctx][name] = Scorer(model, text)
            result["perplexity"][ctx] = {n: s.perplexity for n, s in scorers[ctx].items()}
        print(result["perplexity"], f"{time.time() - started:.1f} s", flush=True)
        study(arguments, model, calibration, scorers, result, started)
    return 0


def study(arguments, model, calibration, scorers, result, started):
    known = recipes_cq.RECIPES if arguments.list == "cq" else recipes.RECIPES
    if arguments.recipe_file:
        with open(arguments.recipe_file, encoding="utf-8") as file:
            known = json.load(file)
        if isinstance(known, dict):
            known = [dict(recipe, name=name) for name, recipe in known["recipes"].items()]
    for recipe in known:
        if not re.search(arguments.recipes, recipe["name"]):
            continue
        if time.time() - started > arguments.seconds:
            print("out of time", flush=True)
            break
        try:
            rows, used = evaluate(model, calibration, recipe, scorers)
        except (RuntimeError, ValueError) as error:
            print(f"{recipe['name']}: {str(error)[:300]}", flush=True)
            hook.CACHE.format = None
            continue
        result["rows"] += rows
        result["recipes"][recipe["name"]] = used
        for row in rows:
            print(f"{row['name']:40s} {row['ctx']} S={row['sinks']} {row['bits']:6.4f} " +
                  "  ".join(f"{row[n]['mean_kld']:.5f} {row[n]['delta_nll']:+.4f} "
                            f"{row[n]['same_top']:.4f}" for n in scorers[row["ctx"]]) +
                  f"  {row['seconds']:.1f}s", flush=True)
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
