#!/usr/bin/env python3
"""Trains the needle model: a small model of Llama 4's shape (three chunked-local layers with RoPE
to one that sees everything and has no positions, its queries scaled by position) that recalls
values by key from random text. It is trained on short texts only, so that corpus-eval can measure
what storage formats and temperature tuning do to exact recall as a context grows far beyond them.

  V/bin/python tests/eval/train_needle.py --out FOLDER [--seconds 185] [--device cuda] [--check]

A text is random sentences of 142 words, lines of random tokens and repeated sentences; between them
stand pairs such as "The code of misty owl is 48213.", and questions "What is the code of misty
owl?" follow. Only the answers' tokens are learnt. FOLDER gets config.json, generation_config.json,
tokenizer.json, tokenizer_config.json, model.safetensors (bf16) and training.log, again at each
checkpoint. --check compares the folder with transformers' Llama4ForCausalLM, in float32.

Needs torch, tokenizers and safetensors, for --check transformers. The words are those of
tests/eval/seeded_words.h and recall_task.cc.
"""
import argparse
import json
import math
import os
import re
import sys
import time

import torch
import torch.nn.functional as F

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPECIAL = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TEMPLATE = ("{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
            "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")
DIGITS = 5
PAIR = "The code of {} {} is {}."
QUESTION = "What is the code of {} {}?"
UNIT_TOKENS = 14  # of the longest sentence with its line break


def read_words():
    """Adjectives, nouns, verbs and places out of the C++ sources of corpus-eval."""
    lists = []
    for name, variable in (("seeded_words.h", "kAdjectives"), ("seeded_words.h", "kNouns"),
                           ("recall_task.cc", "kVerbs"), ("recall_task.cc", "kPlaces")):
        with open(os.path.join(ROOT, "tests/eval", name), encoding="utf-8") as file:
            found = re.search(variable + r" = \{(.*?)\};", file.read(), re.S)
        lists.append(re.findall(r'"(\w+)"', found.group(1)))
    return lists


def make_tokenizer(words, vocabulary):
    """Byte-level BPE, digits one by one; each word with the space before it is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    fixed = [" The", "The", "What", " is", " the", " code", " of"]
    every = [" " + word for group in words for word in group] + fixed
    # The rest of the vocabulary is pieces of English.
    with open(os.path.join(ROOT, "engine/calibration/text.txt"), encoding="utf-8") as file:
        english = file.read()
    tokenizer.train_from_iterator(["".join(every)] * 2000 + [english], trainer)
    for word in every:
        assert len(tokenizer.encode(word).ids) == 1, word
    return tokenizer


class Texts:
    """Random batches, made on the device from tables of token ids."""

    def __init__(self, tokenizer, words, device, seed):
        one = lambda text: tokenizer.encode(text).ids[0]
        self.device = device
        self.words = [torch.tensor([one(" " + w) for w in group], device=device) for group in words]
        self.ids = {text: one(text) for text in (" The", "The", "What", " is", " the", " code",
                                                 " of", " ", "\n", ".", "?", *SPECIAL)}
        self.digits = torch.tensor([one(str(d)) for d in range(10)], device=device)
        self.ordinary = torch.tensor(sorted(
            set(range(tokenizer.get_vocab_size())) - {one(text) for text in SPECIAL}),
            device=device)
        self.random = torch.Generator(device=device).manual_seed(seed)
        self.check(tokenizer)

    def check(self, tokenizer):
        """That the ids which batches are made of are those of the text."""
        tokens, asked = self.batch(1, 768, 4)
        text = tokenizer.decode(tokens[0].tolist(), skip_special_tokens=False)
        question = text.index("\n\nWhat is the code of ")
        first = int(asked[0].nonzero()[0]) - 12
        assert tokenizer.encode(text[question:question + 60]).ids[:9] == tokens[
            0, first:first + 9].tolist(), text

    def below(self, limit, *shape):
        return torch.randint(limit, shape, generator=self.random, device=self.device)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.random, device=self.device)

    def pick(self, group, *shape):
        return self.words[group][self.below(len(self.words[group]), *shape)]

    def filler(self, rows, units):
        """[rows, units, 11]: sentences; some the row's own one over and over, some any tokens."""
        i = self.ids
        same = lambda name: torch.full((rows, units), i[name], device=self.device)
        pick = lambda group: self.pick(group, rows, units)
        text = torch.stack([same(" The"), pick(0), pick(1), pick(2), same(" the"), pick(1), pick(3),
                            same(" the"), pick(0), pick(1), same(".")], dim=2)
        kind = self.rand(rows, units) + (self.rand(rows, 1) - 0.5) * 0.6
        text = torch.where((kind > 0.9)[:, :, None], text[:, :1], text)
        noise = self.ordinary[self.below(len(self.ordinary), rows, units, text.shape[2])]
        return torch.where((kind < 0.1)[:, :, None], noise, text)

    def pairs(self, rows, units):
        """Keys (no two of a row alike) and values of every unit: adjective, noun, digits."""
        nouns = len(self.words[1])
        keys = self.rand(rows, len(self.words[0]) * nouns).topk(units, dim=1).indices
        first = self.digits[1 + self.below(9, rows, units, 1)]
        rest = self.digits[self.below(10, rows, units, DIGITS - 1)]
        values = torch.cat([first, rest], dim=2)
        return self.words[0][keys // nouns], self.words[1][keys % nouns], values

    def same(self, name, *shape):
        return torch.full((*shape, 1), self.ids[name], device=self.device)

    def sentences(self, rows, units, is_pair, keys):
        """[rows, units, 14] tokens with a line break before each, which of them stand, how many."""
        adjective, noun, value = keys
        same = lambda name: self.same(name, rows, units)
        pair = torch.cat([same(" The"), same(" code"), same(" of"), adjective[:, :, None],
                          noun[:, :, None], same(" is"), same(" "), value, same(".")], dim=2)
        text = torch.full((rows, units, UNIT_TOKENS), self.ids["\n"], device=self.device)
        text[:, :, 1:12] = self.filler(rows, units)
        text[:, :, 1:] = torch.where(is_pair[:, :, None], pair, text[:, :, 1:])
        new_line = self.rand(rows, units) < 1 / 6
        text[:, :, 1] = torch.where(new_line & (text[:, :, 1] == self.ids[" The"]),
                                    self.ids["The"], text[:, :, 1])
        count = torch.where(is_pair, pair.shape[2], 11) + new_line
        within = torch.arange(UNIT_TOKENS, device=self.device) + (~new_line)[:, :, None]
        return text.gather(2, within.clamp(max=UNIT_TOKENS - 1)), count

    def questions(self, rows, asked, keys):
        """[rows, 1 + questions * 17]: the first behind the text, the others turns of their own."""
        adjective, noun, value = keys
        count = asked.shape[1]
        same = lambda name: self.same(name, rows, count)
        take = lambda table: table.gather(1, asked)[:, :, None]
        values = value.gather(1, asked[:, :, None].expand(-1, -1, DIGITS))
        lines = torch.cat([same("<|user|>"), same("What"), same(" is"), same(" the"), same(" code"),
                           same(" of"), take(adjective), take(noun), same("?"), same("<|end|>"),
                           same("<|assistant|>"), values, same("<|end|>")], dim=2).flatten(1)
        lines[:, 0] = self.ids["\n"]
        return torch.cat([self.same("\n", rows), lines], dim=1)

    def batch(self, rows, length, questions, most_pairs=1.0):
        """tokens [rows, length] and which of them are answers; pairs are up to the share most_pairs
        of a text's sentences."""
        question_tokens = 12 + DIGITS
        room = length - questions * question_tokens - 2
        units = room // 11 + 1
        assert units <= len(self.words[0]) * len(self.words[1]), "more sentences than keys"
        keys = self.pairs(rows, units)
        lower = questions / units
        share = lower * (max(most_pairs, lower) / lower) ** self.rand(rows, 1)
        wanted = (share * units).ceil().clamp(min=questions)
        score = self.rand(rows, units)
        end = room - self.below(min(64, room // 8), rows, 1)  # of each text
        sure = units * 11 * 11 // (14 * 12)  # sentences that are inside whatever their lengths
        score[:, sure:] = 3
        is_pair = score.argsort(1).argsort(1) < wanted.clamp(max=sure)
        text, count = self.sentences(rows, units, is_pair, keys)
        start = 1 + count.cumsum(1) - count
        at = torch.arange(UNIT_TOKENS, device=self.device)
        place = start[:, :, None] + at
        place = torch.where((at < count[:, :, None]) & (place < end[:, :, None]), place, length)
        tokens = torch.full((rows, length + 1), self.ids["<|end|>"], device=self.device)
        tokens.scatter_(1, place.flatten(1), text.flatten(1))
        tokens[:, 0] = self.ids["<|user|>"]
        asked = score.masked_fill(~is_pair | (start + count >= end), 4).argsort(1)[:, :questions]
        lines = self.questions(rows, asked.gather(1, self.rand(rows, questions).argsort(1)), keys)
        place = end + torch.arange(lines.shape[1], device=self.device)
        tokens.scatter_(1, place, lines)
        answers = torch.zeros((rows, length + 1), dtype=torch.bool, device=self.device)
        at = torch.arange(lines.shape[1] - 1, device=self.device) % question_tokens >= 11
        answers.scatter_(1, place[:, 1:], at.expand(rows, -1))
        return tokens[:, :length], answers[:, :length]


class Model(torch.nn.Module):
    """Llama 4's text model with dense layers; names as in transformers' checkpoints."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        tensors = {"model.embed_tokens.weight": (c["vocab_size"], c["hidden_size"]),
                   "model.norm.weight": (c["hidden_size"],)}
        q, kv = (c[n] * c["head_dim"] for n in ("num_attention_heads", "num_key_value_heads"))
        hidden, inner = c["hidden_size"], c["intermediate_size_mlp"]
        shapes = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
                  "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
                  "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
                  "feed_forward.gate_proj": (inner, hidden),
                  "feed_forward.up_proj": (inner, hidden),
                  "feed_forward.down_proj": (hidden, inner)}
        for layer in range(c["num_hidden_layers"]):
            for name, shape in shapes.items():
                tensors[f"model.layers.{layer}.{name}.weight"] = shape
        self.names = list(tensors)
        for name, shape in tensors.items():
            branch = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = 0.03 / math.sqrt(2 * c["num_hidden_layers"]) if branch else 0.03
            value = torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * scale
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value))

    def weight(self, name):
        return getattr(self, name.replace(".", "/"))

    def attention(self, x, layer, turns):
        c = self.c
        rows, length, _ = x.shape
        matrix = lambda name: self.weight(f"model.layers.{layer}.self_attn.{name}_proj.weight")
        q, k, v = (F.linear(x, matrix(name)).view(rows, length, -1, c["head_dim"])
                   for name in "qkv")
        local = c["no_rope_layers"][layer] == 1
        if local:
            q, k = (torch.view_as_real(torch.view_as_complex(
                t.float().unflatten(3, (-1, 2))) * turns[:, None]).flatten(3) for t in (q, k))
            q, k = (F.rms_norm(t, (c["head_dim"],), eps=c["rms_norm_eps"]).to(v.dtype)
                    for t in (q, k))
            chunks = -(-length // c["attention_chunk_size"])
            pad = chunks * c["attention_chunk_size"] - length
            q, k, v = (F.pad(t, (0, 0, 0, 0, 0, pad)).view(rows * chunks, -1, *t.shape[2:])
                       for t in (q, k, v))
        elif c["attn_temperature_tuning"]:
            place = torch.arange(1, length + 1, device=x.device)
            scale = 1 + c["attn_scale"] * torch.log1p(torch.floor(place / c["floor_scale"]))
            q = (q * scale[:, None, None]).to(v.dtype)
        k, v = (t.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for t in (k, v))
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)),
                                             is_causal=True)
        out = out.transpose(1, 2).reshape(rows, -1, q.shape[2] * c["head_dim"])[:, :length]
        return F.linear(out, matrix("o"))

    def forward(self, tokens):
        """Hidden states [rows, length, hidden] behind the last norm."""
        c = self.c
        norm = lambda x, name: F.rms_norm(x.float(), (c["hidden_size"],), self.weight(name),
                                          c["rms_norm_eps"])
        frequencies = c["rope_parameters"]["rope_theta"] ** (
            -torch.arange(0, c["head_dim"], 2, device=tokens.device).float() / c["head_dim"])
        places = torch.arange(tokens.shape[1], device=tokens.device) % c["attention_chunk_size"]
        angles = places[:, None] * frequencies
        turns = torch.polar(torch.ones_like(angles), angles)
        x = F.embedding(tokens, self.weight("model.embed_tokens.weight"))
        for layer in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(norm(x, prefix + "input_layernorm.weight"), layer, turns)
            y = norm(x, prefix + "post_attention_layernorm.weight")
            matrix = lambda name: self.weight(f"{prefix}feed_forward.{name}_proj.weight")
            x = x + F.linear(F.silu(F.linear(y, matrix("gate"))) * F.linear(y, matrix("up")),
                             matrix("down"))
        return norm(x, "model.norm.weight")

    def logits(self, states):
        return F.linear(states, self.weight("model.embed_tokens.weight")).float()


def config_of(arguments, vocabulary):
    layers = arguments.layers
    return {
        "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "dtype": "bfloat16",
        "vocab_size": vocabulary, "hidden_size": arguments.hidden,
        "intermediate_size": arguments.inner, "intermediate_size_mlp": arguments.inner,
        "num_hidden_layers": layers, "num_attention_heads": arguments.heads,
        "num_key_value_heads": arguments.kv_heads, "head_dim": 64, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "attention_bias": False,
        "max_position_embeddings": 16 << 20, "attention_chunk_size": arguments.chunk,
        "no_rope_layers": [1 if (i + 1) % 4 else 0 for i in range(layers)], "moe_layers": [],
        "num_local_experts": 1, "num_experts_per_tok": 1, "use_qk_norm": True,
        "attn_temperature_tuning": True, "attn_scale": 0.1, "floor_scale": arguments.longest,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "bos_token_id": None, "eos_token_id": None}


def save(model, tokenizer, folder, log):
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    end = tokenizer.token_to_id("<|end|>")
    config = dict(model.c, eos_token_id=end, pad_token_id=end)
    files = {"config.json": config, "generation_config.json": {"eos_token_id": [end]},
             "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast",
                                       "eos_token": "<|end|>", "chat_template": TEMPLATE}}
    for name, value in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=1) + "\n")
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    tensors = {name: model.weight(name).detach().to(torch.bfloat16).cpu().contiguous()
               for name in model.names}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "training.log"), "w", encoding="utf-8") as file:
        file.write("\n".join(log) + "\n")


def answer_loss(model, batch):
    """Mean cross entropy of the answers' tokens, and which of them are the most likely ones."""
    tokens, answers = batch
    rows, places = answers[:, 1:].nonzero(as_tuple=True)
    targets = tokens[rows, places + 1]
    logits = model.logits(model(tokens)[rows, places])
    return F.cross_entropy(logits, targets), logits.argmax(1) == targets


@torch.no_grad()
def measure(model, texts, length, rows, questions, most_pairs=0.5):
    """Share of answers that are right in every token."""
    _, right = answer_loss(model, texts.batch(rows, length, questions, most_pairs))
    return right.view(-1, DIGITS + 1).all(1).float().mean().item()


def stage_of(share, arguments):
    """Rows, length and questions of a step: short texts first."""
    for until, parts, questions in ((0.1, 3, 0.5), (0.25, 6, 1), (0.5, 8, 1), (math.inf, 16, 2)):
        if share < until:
            length = arguments.longest * parts // 16
            return max(1, arguments.tokens // length), length, int(arguments.questions * questions)


def train(model, tokenizer, texts, arguments, say, log):
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, betas=(0.9, 0.98),
                                  weight_decay=0.01, fused=arguments.device == "cuda")
    start, step, seen, saved = time.time(), 0, 0, 0
    while True:
        share = (time.time() - start) / arguments.seconds
        if share >= 1:
            break
        rows, length, questions = stage_of(share, arguments)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1, (step + 1) / 200, 0.02 + (1 - share) / 0.5)
        with torch.autocast(arguments.device, torch.bfloat16):
            loss, right = answer_loss(model, texts.batch(rows, length, questions))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step, seen = step + 1, seen + rows * length
        if step % arguments.report == 0:
            say(f"{time.time() - start:6.1f} s  step {step:6d}  tokens {seen / 1e6:7.1f}M  length "
                f"{length:5d}  loss {loss.item():.5f}  tokens right {right.float().mean():.4f}")
        if share * 6 > saved + 1:
            saved += 1
            save(model, tokenizer, arguments.out, log)
    say(f"{step} steps, {seen} tokens, {time.time() - start:.0f} s")


def report(model, texts, arguments, say):
    """Recall at the lengths that were learnt and beyond, with temperature tuning and without."""
    for name in model.names:
        model.weight(name).data = model.weight(name).data.bfloat16().float()
    for tuned in (True, False):
        model.c = dict(model.c, attn_temperature_tuning=tuned)
        for times in arguments.evaluate:
            length = arguments.longest * times
            rows = max(1, arguments.tokens // length)
            with torch.autocast(arguments.device, torch.bfloat16):
                share = sum(measure(model, texts, length, rows, 32, min(0.5, 1500 * 11 / length))
                            for _ in range(4)) / 4
            say(f"temperature {'on ' if tuned else 'off'}  length {length:7d}  answers right "
                f"{share:.4f} of {4 * rows * 32}")
    model.c = dict(model.c, attn_temperature_tuning=True)


def check(model, texts, folder, say):
    """The largest difference of a logit from transformers' own graph, over several chunks."""
    import transformers
    reference = transformers.Llama4ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = texts.batch(1, model.c["attention_chunk_size"] * 5 // 2, 4)[0]
    with torch.no_grad():
        difference = (reference(tokens).logits - model.logits(model(tokens))).abs().max().item()
    say(f"largest difference of a logit from transformers {transformers.__version__}: "
        f"{difference:.2g}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=185)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=1280)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--inner", type=int, default=256)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--kv-heads", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--longest", type=int, default=2048)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=98304)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--evaluate", type=lambda t: [int(v) for v in t.split(",")],
                        default=[1, 2, 4, 8, 16])
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    log = []

    def say(line):
        print(line, flush=True)
        log.append(line)

    words = read_words()
    tokenizer = make_tokenizer(words, arguments.vocabulary)
    texts = Texts(tokenizer, words, arguments.device, arguments.seed)
    model = Model(config_of(arguments, tokenizer.get_vocab_size())).to(arguments.device)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    say(f"{' '.join(sys.argv[1:])}; torch {torch.__version__}, {name}; "
        f"{sum(p.numel() for p in model.parameters())} weights")
    train(model, tokenizer, texts, arguments, say, log)
    save(model, tokenizer, arguments.out, log)
    report(model, texts, arguments, say)
    save(model, tokenizer, arguments.out, log)
    if arguments.check:
        model.to("cpu")
        check(model, Texts(tokenizer, words, "cpu", 7), arguments.out, say)
        save(model, tokenizer, arguments.out, log)


if __name__ == "__main__":
    main()
