"""A Llama model whose keys are kept un-rotated, so that any tokens of a corpus can be attended to
at any positions. Float32 (TF32 products on a GPU), keys and values kept in 16 bit on a GPU.

Shapes: L layers, H query heads, G key heads, D head dimension, B rows.
"""

import torch
import torch.nn.functional as F

from study import hook


class Model:
    """Weights, rotation, and the two passes: over windows of a corpus, and over a question."""

    def __init__(self, path, device):
        base = hook.StudyModel(path, device)
        self.device = device
        self.kept = torch.float16 if device == "cuda" else torch.float32
        self.L, self.H, self.G, self.D = base.layers, base.q_heads, base.kv_heads, base.head_dim
        self.core = base.model.model
        self.head = base.model.lm_head.weight
        self.epsilon = base.model.config.rms_norm_eps
        self.frequencies = base.frequencies(0).to(device)

    def norm(self, x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * weight

    def rotate(self, x, positions):
        """x [..., tokens, D]; positions broadcast to [..., tokens]."""
        angles = (positions[..., None].float() * self.frequencies)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.float().chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)

    def project(self, block, x):
        """RETURNS un-rotated q [B, H, T, D], k and v [B, G, T, D]."""
        h = self.norm(x, block.input_layernorm.weight)
        a = block.self_attn
        shape = (x.shape[0], x.shape[1], -1, self.D)
        return (F.linear(h, m.weight).view(shape).transpose(1, 2)
                for m in (a.q_proj, a.k_proj, a.v_proj))

    def finish(self, block, x, attended):
        """attended [B, H, T, D]: the rest of the layer."""
        x = x + F.linear(attended.transpose(1, 2).flatten(2).float(), block.self_attn.o_proj.weight)
        h = self.norm(x, block.post_attention_layernorm.weight)
        m = block.mlp
        return x + F.linear(F.silu(F.linear(h, m.gate_proj.weight)) * F.linear(h, m.up_proj.weight),
                            m.down_proj.weight)

    def prefill(self, ids, store):
        """Causal pass over ids [B, T] at positions 0 .. T-1; store(layer, k, v) takes the
        un-rotated keys and the values [B, G, T, D] of each layer."""
        x = self.core.embed_tokens.weight[ids]
        positions = torch.arange(ids.shape[1], device=self.device)
        for layer, block in enumerate(self.core.layers):
            q, k, v = self.project(block, x)
            k, v = k.to(self.kept), v.to(self.kept)
            store(layer, k, v)
            q, k = self.rotate(q.to(self.kept), positions), self.rotate(k, positions)
            k, v = (t.repeat_interleave(self.H // self.G, 1) for t in (k, v))
            x = self.finish(block, x,
                            F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Context:
    """What rows of questions attend to before their own tokens: un-rotated keys and values at
    compact positions 0 .. length-1, padded to the longest row."""

    def __init__(self, model, lengths, width):
        self.lengths = torch.tensor(lengths, device=model.device)
        shape = (model.L, len(lengths), model.G, width, model.D)
        self.k = torch.zeros(shape, dtype=model.kept, device=model.device)
        self.v = torch.zeros(shape, dtype=model.kept, device=model.device)
        self.valid = torch.arange(width, device=model.device) < self.lengths[:, None]

    @staticmethod
    def gather(model, store, prefix, rows):
        """rows: lists of token indices of store behind the prefix's own tokens."""
        start = prefix.k.shape[3]
        width = start + max(len(r) for r in rows)
        context = Context(model, [start + len(r) for r in rows], width)
        index = torch.zeros(len(rows), width - start, dtype=torch.long)
        for i, row in enumerate(rows):
            index[i, :len(row)] = torch.as_tensor(row, dtype=torch.long)
        index = index.to(model.device)
        positions = torch.arange(width, device=model.device)
        for layer in range(model.L):
            for target, source, base in ((context.k, store.k, prefix.k),
                                         (context.v, store.v, prefix.v)):
                target[layer, :, :, :start] = base[layer, 0]
                target[layer, :, :, start:] = source[layer][:, index].transpose(0, 1)
            context.k[layer] = model.rotate(context.k[layer], positions)
        return context

    @staticmethod
    def read(model, texts, batch_tokens=131072):
        """texts: lists of token ids, computed from position 0 with causal attention."""
        width = max(len(t) for t in texts)
        ids = torch.zeros(len(texts), width, dtype=torch.long)
        for i, text in enumerate(texts):
            ids[i, :len(text)] = torch.as_tensor(text, dtype=torch.long)
        ids = ids.to(model.device)
        context = Context(model, [len(t) for t in texts], width)
        positions = torch.arange(width, device=model.device)
        step = max(1, batch_tokens // width)
        for begin in range(0, len(texts), step):
            rows = slice(begin, begin + step)

            def keep(layer, k, v, rows=rows):
                context.k[layer, rows] = model.rotate(k, positions)
                context.v[layer, rows] = v
            model.prefill(ids[rows], keep)
        return context


class Answer:
    """Greedy answers of rows of questions over a Context."""

    def __init__(self, model, context, suffixes, steps, stops, taps=False, mass=False):
        """suffixes: token lists. taps: keep un-rotated q of all layers over the question. mass:
        keep the softmax mass of every head on the context's tokens, summed over the last question
        token and the steps."""
        self.model, self.context, self.stops = model, context, stops
        rows = len(suffixes)
        self.lengths = torch.tensor([len(s) for s in suffixes], device=model.device)
        width = max(len(s) for s in suffixes)
        ids = torch.zeros(rows, width, dtype=torch.long)
        for i, suffix in enumerate(suffixes):
            ids[i, :len(suffix)] = torch.tensor(suffix)
        shape = (model.L, rows, model.G, width + steps, model.D)
        self.own_k = torch.zeros(shape, dtype=model.kept, device=model.device)
        self.own_v = torch.zeros(shape, dtype=model.kept, device=model.device)
        self.taps = [] if taps else None
        self.mass = None
        self.keep_mass = mass
        own = torch.arange(width + steps, device=model.device)
        self.own_valid = (own < self.lengths[:, None]) | (own >= width)
        ids = ids.to(model.device)
        positions = context.lengths[:, None] + torch.arange(width, device=model.device)
        x = self.forward(ids, positions, 0)
        last = x[torch.arange(rows), self.lengths - 1]
        if mass:
            self.mass = self.pending[torch.arange(rows), :, :, self.lengths - 1]
        if taps:
            self.question_taps, self.taps = self.taps, None
        self.tokens = []
        done = torch.zeros(rows, dtype=torch.bool, device=model.device)
        for step in range(steps):
            token = self.logits(last).argmax(-1)
            done |= torch.isin(token, stops)
            self.tokens.append(torch.where(done, -1, token))
            if step + 1 == steps or bool(done.all()):
                break
            positions = (context.lengths + self.lengths + step)[:, None]
            last = self.forward(token[:, None], positions, width + step)[:, 0]
            if mass:
                self.mass = self.mass + self.pending[:, :, :, 0] * ~done[:, None, None, None]

    def logits(self, x):
        return F.linear(self.model.norm(x, self.model.core.norm.weight), self.model.head)

    def forward(self, ids, positions, column):
        """ids [B, T] at own columns column .. column+T-1. RETURNS the last layer's rows."""
        model, context = self.model, self.context
        rows, count = ids.shape
        x = model.core.embed_tokens.weight[ids]
        end = column + count
        own = torch.arange(end, device=model.device)
        queries = torch.arange(column, end, device=model.device)
        own_mask = self.own_valid[:, None, :end] & (own <= queries[:, None])
        mask = torch.cat((context.valid[:, None].expand(-1, count, -1), own_mask), -1)
        mask = torch.where(mask, 0.0, float("-inf"))[:, None]
        groups = model.H // model.G
        masses = []
        for layer, block in enumerate(model.core.layers):
            q, k, v = model.project(block, x)
            if self.taps is not None:
                self.taps.append(q)
            q = model.rotate(q, positions[:, None]).to(model.kept)
            self.own_k[layer, :, :, column:end] = model.rotate(k, positions[:, None])
            self.own_v[layer, :, :, column:end] = v
            q = q.reshape(rows, model.G, groups * count, model.D)
            keys = torch.cat((context.k[layer], self.own_k[layer, :, :, :end]), 2)
            values = torch.cat((context.v[layer], self.own_v[layer, :, :, :end]), 2)
            scores = (q @ keys.transpose(2, 3)).float() * model.D ** -0.5
            scores = scores.view(rows, model.H, count, -1) + mask
            weights = scores.softmax(-1)
            if self.keep_mass:
                masses.append(weights[..., :context.valid.shape[1]].to(torch.float16))
            out = weights.to(model.kept).view(rows, model.G, groups * count, -1) @ values
            x = model.finish(block, x, out.view(rows, model.H, count, model.D))
        if self.keep_mass:
            self.pending = torch.stack(masses, 1)
        return x

    def answers(self):
        """RETURNS a token list a row."""
        table = torch.stack(self.tokens, 1).tolist()
        return [row[:row.index(-1)] if -1 in row else row for row in table]


class Store:
    """The keys (un-rotated) and values of a corpus's documents, token by token."""

    def __init__(self, model, prefix_ids, documents, window, overlap, batch_tokens=65536):
        """Every document in windows of `window` own tokens behind the prefix, later ones also
        behind the `overlap` tokens before them."""
        tokens = sum(len(d) for d in documents)
        shape = (model.L, model.G, tokens, model.D)
        self.k = torch.empty(shape, dtype=model.kept, device=model.device)
        self.v = torch.empty(shape, dtype=model.kept, device=model.device)
        jobs, at = [], 0
        for document in documents:
            for begin in range(0, len(document), window):
                before = min(begin, overlap)
                own = document[begin:begin + window]
                ids = list(prefix_ids) + list(document[begin - before:begin]) + list(own)
                jobs.append((ids, len(prefix_ids) + before, at + begin, len(own)))
            at += len(document)
        jobs.sort(key=lambda job: len(job[0]))
        while jobs:
            width = len(jobs[-1][0])
            count = max(1, batch_tokens // width)
            part, jobs = jobs[-count:], jobs[:-count]
            ids = torch.zeros(len(part), width, dtype=torch.long)
            for i, job in enumerate(part):
                ids[i, :len(job[0])] = torch.tensor(job[0])
            source, target = [], []
            for i, (_, first, to, own) in enumerate(part):
                source.append(torch.arange(first, first + own) + i * width)
                target.append(torch.arange(to, to + own))
            source = torch.cat(source).to(model.device)
            target = torch.cat(target).to(model.device)

            def keep(layer, k, v, source=source, target=target):
                self.k[layer][:, target] = k.transpose(0, 1).flatten(1, 2)[:, source]
                self.v[layer][:, target] = v.transpose(0, 1).flatten(1, 2)[:, source]
            model.prefill(ids.to(model.device), keep)
