"""Calibration: from a text's q, k, v to the coordinates that keys and values are coded in.

For one layer and KV head, S is the covariance of what is stored and C the weight of its error:
error^T C error is what the model loses. Notation of a basis: y = T (x - mean) is coded, and its
error weighs W = T^-T C T^-1. All matrices float64 while they are made.
"""

import math

import numpy
import torch

from study import hook


def hadamard(size, seed, device):
    """An orthogonal matrix of +-1/sqrt(size) with random column signs; size = 2^a."""
    h = torch.ones(1, 1, dtype=torch.float64, device=device)
    while h.shape[0] < size:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)), 0)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=generator).double().mul(2).sub(1)
    return h * signs.to(device) / math.sqrt(size)


def geometric_mean_rotation(singular_values, seed):
    """Orthogonal P with diag(sigma) P = (orthogonal) R, R upper triangular with equal diagonal.

    Jiang, Hager, Li: The geometric mean decomposition, Linear Algebra Appl. 396 (2005). Which of
    the admissible partners is taken at each step is drawn, so that P mixes.
    """
    rng = numpy.random.default_rng(seed)
    n = len(singular_values)
    r = numpy.diag(numpy.asarray(singular_values, dtype=numpy.float64))
    p = numpy.eye(n)
    target = math.exp(numpy.log(numpy.diag(r)).mean())
    for k in range(n - 1):
        diagonal = numpy.diag(r)
        wanted = diagonal[k + 1:] <= target if diagonal[k] >= target else diagonal[k + 1:] >= target
        choices = numpy.flatnonzero(wanted)
        j = k + 1 + (rng.choice(choices) if len(choices) else 0)
        order = numpy.arange(n)
        order[k + 1], order[j] = order[j], order[k + 1]
        r, p = r[order][:, order], p[:, order]
        a, b = r[k, k], r[k + 1, k + 1]
        gap = a * a - b * b
        c = 1.0 if abs(gap) < 1e-12 * a * a else \
            math.sqrt(min(1.0, max(0.0, (target * target - b * b) / gap)))
        s = math.sqrt(1 - c * c)
        right = numpy.array([[c, -s], [s, c]])
        left = numpy.array([[c * a, -s * b], [s * b, c * a]]) / target
        r[:, k:k + 2] = r[:, k:k + 2] @ right
        p[:, k:k + 2] = p[:, k:k + 2] @ right
        r[k:k + 2] = left.T @ r[k:k + 2]
    return p


class Anchors:
    """Keys as stored: rotated back to the last multiple of `period` (1: un-rotated; 0: not)."""

    def __init__(self, model, layer, period):
        self.frequencies, self.period = model.frequencies(layer).double(), period

    def angles(self, tokens):
        position = torch.arange(tokens, device=self.frequencies.device)
        anchor = position // self.period * self.period if self.period else position * 0
        return (anchor.double()[:, None] * self.frequencies).float()

    def offset_angles(self, tokens):
        position = torch.arange(tokens, device=self.frequencies.device).double()
        return (position[:, None] * self.frequencies).float() - self.angles(tokens)

    def to_stored(self, key):
        return hook.rotate(key, self.angles(key.shape[-2]), -1)

    def from_stored(self, key):
        return hook.rotate(key, self.angles(key.shape[-2]), 1)


class Calibration:
    """Plain passes over `ids` [windows, tokens], their q, k, v and, where asked, gradients."""

    def __init__(self, model, ids, sinks=4):
        self.model, self.ids, self.sinks = model, ids, sinks
        self.gradient = None
        hook.CACHE.collect = {}
        self.residual = [0.0] * model.layers  # mean squared norm of what enters each layer
        with torch.no_grad():
            for window in ids.split(2):
                states = model.model.model(input_ids=window, use_cache=False,
                                           output_hidden_states=True).hidden_states
                for layer in range(model.layers):
                    entering = states[layer][:, sinks:].square().sum(-1).mean().item()
                    self.residual[layer] += entering * len(window) / len(ids)
        self.data = {layer: [torch.cat(part) for part in zip(*entries)]
                     for layer, entries in hook.CACHE.collect.items()}
        hook.CACHE.collect = None
        self.weights = {}
        self.attended = {}  # [kv_heads, groups]: sum of p^2 over the queries of a key, by layer

    def compute_gradients(self, seed=1):
        """d nll / d(k, v) with labels drawn from the model: the Fisher matrix's factor."""
        self.gradient = {}
        generator = torch.Generator(self.ids.device).manual_seed(seed)
        for window in self.ids.split(1):
            hook.CACHE.gradients = {}
            for parameter in self.model.model.get_input_embeddings().parameters():
                parameter.requires_grad_(True)
            logits = self.model.logits(self.model.hidden(window))[0]
            label = torch.multinomial(torch.softmax(logits.detach(), -1), 1,
                                      generator=generator)[:, 0]
            torch.nn.functional.cross_entropy(logits, label, reduction="sum").backward()
            for layer, entries in hook.CACHE.gradients.items():
                for key, value in entries:
                    self.gradient.setdefault(layer, []).append((key.grad, value.grad))
            self.model.model.get_input_embeddings().weight.grad = None
            self.model.model.get_input_embeddings().weight.requires_grad_(False)
        hook.CACHE.gradients = None
        self.gradient = {layer: [torch.cat(part) for part in zip(*entries)]
                         for layer, entries in self.gradient.items()}

    def rows(self, x):
        """[batch, heads, tokens, d] without sinks as [heads, n, d] in double."""
        x = x[:, :, self.sinks:]
        return x.permute(1, 0, 2, 3).reshape(x.shape[1], -1, x.shape[3]).double()

    def stored_keys(self, layer, period):
        return self.rows(Anchors(self.model, layer, period).to_stored(self.data[layer][1]))

    def plain_key_mean(self, layer):
        """[heads, d] of the un-rotated keys."""
        return self.stored_keys(layer, 1).mean(1)

    def key_weight(self, layer, period, kind):
        name = (layer, period, kind)
        if name not in self.weights:
            maker = {"queries": self._query_weight, "attention": self._attention_weight,
                     "fisher": self._fisher_key_weight}[kind]
            self.weights[name] = maker(layer, period)
        return self.weights[name]

    def value_weight(self, layer, kind):
        if kind == "fisher":
            g = self.rows(self.gradient[layer][1])
            return g.transpose(1, 2) @ g / g.shape[1]
        parts = [self.model.output_weight(layer, h).double() for h in range(self.model.kv_heads)]
        squares = torch.stack([w.transpose(1, 2) @ w for w in parts])  # [kv_heads, groups, d, d]
        if kind == "attention":
            self.key_weight(layer, 128, "attention")
            squares = squares * self.attended[layer].to(squares)[..., None, None]
        return squares.sum(1)

    def neighbour_share(self, layer):
        """[kv_heads]: sum of p_ts p_t(s+1) over sum of p_ts^2, s not a sink, each query head with
        the square of its output weights: how far neighbours' errors of values add up."""
        query, key, _ = self.data[layer]
        module = self.model.attention_module(layer)
        scaling = getattr(module, "scaling", None) or module.head_dim ** -0.5
        tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
        mask = hook.visible(tokens, getattr(module, "sliding_window", None), key.device)
        sums = torch.zeros(2, key.shape[1], dtype=torch.float64)
        for h in range(query.shape[1]):
            g = h // groups
            p = torch.softmax((query[:, h] @ key[:, g].transpose(1, 2) * scaling)
                              .masked_fill(~mask, -1e30), -1)[:, :, self.sinks:]
            size = self.model.output_weight(layer, g)[h % groups].square().sum().item()
            sums[0, g] += size * (p[:, :, 1:] * p[:, :, :-1]).sum().item()
            sums[1, g] += size * p.square().sum().item()
        return sums[0] / sums[1]

    def _fisher_key_weight(self, layer, period):
        g = self.rows(Anchors(self.model, layer, period).to_stored(self.gradient[layer][0]))
        return g.transpose(1, 2) @ g / g.shape[1]

    def _query_weight(self, layer, period):
        """Second moment of the queries, at every distance of query and anchor up to the window."""
        query = self.data[layer][0]
        tokens = query.shape[2]
        anchors = Anchors(self.model, layer, 1)
        plain = anchors.to_stored(query)[:, :, self.sinks:]
        total = 0
        distances = torch.linspace(0, tokens - 1, 32).round().tolist()
        for distance in distances if period else [None]:
            if distance is None:
                turned = query[:, :, self.sinks:]
            else:
                angle = (distance * anchors.frequencies).float()[None]
                turned = hook.rotate(plain, angle, 1)
            rows = turned.permute(1, 0, 2, 3).reshape(self.model.kv_heads, -1, query.shape[3])
            total = total + (rows.transpose(1, 2) @ rows).double() / rows.shape[1]
        return total

    def _attention_weight(self, layer, period):
        """Sum over (query t, key s) of p^2 |W_o (v_s - o_t)|^2 q q^T, q seen from the key's anchor:
        to first order the squared change of the layer's output per squared change of the key."""
        query, key, value = self.data[layer]
        module = self.model.attention_module(layer)
        scaling = getattr(module, "scaling", None) or module.head_dim ** -0.5
        tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
        mask = hook.visible(tokens, getattr(module, "sliding_window", None), key.device)
        anchors = Anchors(self.model, layer, period)
        span = period or tokens
        blocks = list(range(0, tokens, span))
        blocks = blocks[::max(1, len(blocks) // 32)]
        total = torch.zeros(key.shape[1], key.shape[3], key.shape[3], dtype=torch.float64,
                            device=key.device)
        attended = torch.zeros(key.shape[1], groups, dtype=torch.float64)
        taken = sum(min(span, tokens - b) for b in blocks) * key.shape[0]
        for h in range(query.shape[1]):
            g = h // groups
            metric = self.model.output_weight(layer, g)[h % groups]
            metric = metric.T @ metric
            q, k, v = query[:, h], key[:, g], value[:, g]
            p = torch.softmax((q @ k.transpose(1, 2) * scaling).masked_fill(~mask, -1e30), -1)
            p[:, :, :self.sinks] = 0
            attended[g, h % groups] = p.square().sum().item() / p.shape[0] / tokens
            out = p @ v
            vm, om = v @ metric, out @ metric
            gap = (vm * v).sum(-1)[:, None, :] + (om * out).sum(-1)[:, :, None] \
                - 2 * om @ v.transpose(1, 2)
            weight = p * p * gap.clamp_min(0)
            for b in blocks:
                w = weight[:, :, b:b + span].sum(-1)
                angle = (torch.full((1,), float(b if period else 0), device=key.device,
                                    dtype=torch.float64)[:, None] * anchors.frequencies).float()
                seen = hook.rotate(q, angle, -1)
                total[g] += torch.einsum("bt,btd,bte->de", w, seen, seen).double() / taken
        self.attended[layer] = attended
        # Scores are scaled; the weight is of the error of the keys themselves.
        return total * scaling ** 2


def regular(matrix, share):
    d = matrix.shape[-1]
    trace = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return matrix + share * trace * torch.eye(d, dtype=matrix.dtype, device=matrix.device)


def make_basis(data_covariance, weight, kind, power, seed):
    """RETURNS (T, W), each [heads, d, d], for kind:

    hadamard      T = signed Hadamard, weights ignored in T
    balanced      T = H diag(lambda^power) U^T L^-1, S = L L^T, L^T C L = U diag(lambda) U^T;
                  power 1/4 gives data and error weight the same diagonal, 0 whitens
    even          the same with the rotation of geometric_mean_rotation in place of H
    channels      the same without any rotation: coordinates sorted by lambda, falling
    channels16    rotated by a Hadamard inside groups of 16 of those
    """
    device = data_covariance.device
    # Small dense factorizations: quicker on the host than as many launches.
    s, c = regular(data_covariance.cpu(), 1e-5), regular(weight.cpu(), 1e-5)
    heads, d, _ = s.shape
    h = hadamard(d, seed, s.device)
    if kind == "hadamard":
        t = h.expand(heads, d, d)
    else:
        lower = torch.linalg.cholesky(s)
        values, vectors = torch.linalg.eigh(lower.transpose(1, 2) @ c @ lower)
        values, vectors = values.flip(-1).clamp_min(1e-12), vectors.flip(-1)
        white = torch.linalg.solve_triangular(lower, torch.eye(d, dtype=s.dtype, device=s.device)
                                              .expand(heads, d, d), upper=False)
        white = vectors.transpose(1, 2) @ white
        scaled = values[..., None] ** power * white
        if kind == "balanced":
            t = h @ scaled
        elif kind == "even":
            turn = [geometric_mean_rotation((v ** (0.5 - power)).numpy(), seed + i)
                    for i, v in enumerate(values)]
            t = torch.stack([torch.tensor(p.T) for p in turn]) @ scaled
        elif kind == "channels":
            t = scaled
        elif kind == "channels16":
            small = hadamard(16, seed, s.device)
            t = torch.block_diag(*[small] * (d // 16)) @ scaled
        else:
            raise ValueError(kind)
    inverse = torch.linalg.inv(t)
    return t.to(device), (inverse.transpose(1, 2) @ c @ inverse).to(device)
