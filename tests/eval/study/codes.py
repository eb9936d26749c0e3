"""Codes: unit-variance coordinates to the nearest thing that fits in so many bits, and back.

Everything here maps x [heads, n, d] to its reconstruction; the bit strings themselves are not made.
"""

import functools
import itertools
import math

import torch

UNIFORM_STEPS = {1: 1.596, 2: 0.9957, 3: 0.586, 4: 0.3352, 5: 0.1881, 6: 0.1041, 8: 0.0308}


def gaussian_quantiles(count):
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return math.sqrt(2) * torch.erfinv(2 * u - 1)


@functools.lru_cache(maxsize=None)
def lloyd_levels(bits):
    """Levels of least squared error for a Gaussian: Lloyd's iteration on 2^16 quantiles."""
    x = gaussian_quantiles(1 << 16)
    levels = gaussian_quantiles(1 << bits)
    for _ in range(300):
        index = torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)
        total = torch.zeros_like(levels).scatter_add_(0, index, x)
        levels = total / torch.bincount(index, minlength=len(levels))
    return levels.float()


@functools.lru_cache(maxsize=None)
def uniform_levels(bits):
    count = 1 << bits
    return UNIFORM_STEPS[bits] * (torch.arange(count) - (count - 1) / 2)


def nearest(x, levels):
    levels = levels.to(x.device)
    return levels[torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)]


def viterbi(x, table, window, bits):
    """Bit-shift trellis: value i is table[the last `window` bits of the code string]; the string
    starts behind zeros, so that nothing but `bits` a value is stored. Least squared error."""
    table = table.to(x.device)
    return table[viterbi_states(x.reshape(-1, x.shape[-1]), table, window, bits)].reshape(x.shape)


def viterbi_states(rows, table, window, bits):
    """The table indices of the best path of each row of [n, d]."""
    out = torch.empty(rows.shape, dtype=torch.long, device=rows.device)
    fan, states = 1 << bits, 1 << window
    step = max(1, (1 << 31) // (states * 16))
    for begin in range(0, len(rows), step):
        part = rows[begin:begin + step]
        n, length = part.shape
        cost = torch.full((n, states), float("inf"), device=rows.device)
        cost[:, 0] = 0
        origin = []
        for i in range(length):
            best, arg = cost.reshape(n, fan, states // fan).min(dim=1)
            origin.append(arg.to(torch.uint8))
            cost = best.repeat_interleave(fan, dim=1) + (part[:, i:i + 1] - table) ** 2
        state = cost.argmin(dim=1)
        for i in reversed(range(length)):
            out[begin:begin + step, i] = state
            high = state >> bits
            arg = origin[i].gather(1, high[:, None])[:, 0].long()
            state = high | (arg << (window - bits))
    return out


@functools.lru_cache(maxsize=None)
def trellis_table(window, bits, device):
    """Table of a bit-shift trellis, trained on Gaussian samples: encode, average, repeat."""
    if window == bits:
        return lloyd_levels(bits).to(device)
    generator = torch.Generator().manual_seed(7)
    states = 1 << window
    # Children of one state (low bits) far apart, as in set partitioning.
    high = torch.randperm(states >> bits, generator=generator)
    low = torch.arange(1 << bits)
    rank = (low[None, :] * (states >> bits) + high[:, None]).reshape(-1)
    table = gaussian_quantiles(states)[rank].float().to(device)
    samples = torch.randn(max(2048, states), 64, generator=generator).to(device)
    for _ in range(15):
        index = viterbi_states(samples, table, window, bits).reshape(-1)
        total = torch.zeros(states, device=device).scatter_add_(0, index, samples.reshape(-1))
        count = torch.bincount(index, minlength=states)
        table = torch.where(count > 3, total / count.clamp_min(1), table)
    return table


def search(x, factor, table, window, bits, beam):
    """Least |R e| over code strings, e = x - table[...], by keeping the `beam` best prefixes.

    factor R [heads, d, d]: upper triangular, W = R^T R. Coordinates are decided from the last to
    the first; each one is aimed where it repairs the error of those before (noise feedback, as GPTQ
    and LDLQ do for weights). beam 1 is the greedy choice.
    """
    heads, n, d = x.shape
    table = table.to(x.device)
    fan, mask = 1 << bits, (1 << window) - 1
    symbols = torch.arange(fan, device=x.device)
    out = torch.empty_like(x)
    step = max(1, (1 << 28) // (heads * beam * (d + 4 * fan)))
    for begin in range(0, n, step):
        part = x[:, begin:begin + step]
        m = part.shape[1]
        error = torch.zeros(heads, m, 1, d, device=x.device)
        cost = torch.zeros(heads, m, 1, device=x.device)
        state = torch.zeros(heads, m, 1, dtype=torch.long, device=x.device)
        for i in reversed(range(d)):
            pull = factor[:, i, i + 1:] / factor[:, i, i:i + 1]
            target = part[:, :, i, None] + torch.einsum(
                "hmbd,hd->hmb", error[..., i + 1:], pull)
            children = (state[..., None] << bits | symbols) & mask
            miss = target[..., None] - table[children]
            total = cost[..., None] + factor[:, i, i, None, None, None] ** 2 * miss ** 2
            flat = total.flatten(2)
            keep = min(beam, flat.shape[2])
            cost, pick = flat.topk(keep, dim=2, largest=False)
            state = children.flatten(2).gather(2, pick)
            parent = pick // fan
            if keep > 1 or error.shape[2] > 1:
                error = error.gather(2, parent[..., None].expand(-1, -1, -1, d))
            error[..., i] = part[:, :, i, None] - table[state]
        best = cost.argmin(dim=2)[..., None, None].expand(-1, -1, 1, d)
        out[:, begin:begin + step] = part - error.gather(2, best)[:, :, 0]
    return out


@functools.lru_cache(maxsize=None)
def e8p_book(device):
    """E8P of QuIP# (2402.04396): 2^16 points of D8 + 1/2, shifted by +-1/4; 2 bits a value."""
    patterns = [p for p in itertools.product((0.5, 1.5, 2.5), repeat=8)
                if sum(v * v for v in p) <= 12.01]
    short = [p for p in patterns if sum(v * v for v in p) <= 10.01]
    long = [p for p in patterns if sum(v * v for v in p) > 10.01]
    chosen = torch.tensor(short + long[:256 - len(short)], dtype=torch.float32)
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=7)))
    signs = torch.cat((signs, torch.ones(128, 1)), 1)
    points = chosen[:, None, :] * signs[None]
    odd = (points.sum(-1) % 2).abs() > 0.5   # an even sum of the half-integers: flip the last one
    points[..., 7] = torch.where(odd, -points[..., 7], points[..., 7])
    points = points.reshape(-1, 8)
    book = torch.cat((points + 0.25, points - 0.25))
    return (book / 1.02).to(device)


def e8p(x):
    book = e8p_book(x.device)
    rows = x.reshape(-1, 8)
    out = torch.empty_like(rows)
    half = (book * book).sum(1) / 2
    step = 1 << 14
    for begin in range(0, len(rows), step):
        part = rows[begin:begin + step]
        out[begin:begin + step] = book[(part @ book.T - half).argmax(dim=1)]
    return out.reshape(x.shape)


def ggml(x, kind):
    """llama.cpp's cache types: groups of 32 along d, scale (and minimum) in fp16."""
    g = x.reshape(*x.shape[:-1], -1, 32)
    if kind in ("q4_1", "q5_1"):
        top = 15 if kind == "q4_1" else 31
        low = g.amin(-1, keepdim=True)
        scale = (g.amax(-1, keepdim=True) - low) / top
        code = ((g - low) / scale.clamp_min(1e-20) + 0.5).floor().clamp(0, top)
        return (code * scale.half().float() + low.half().float()).reshape(x.shape)
    if kind == "q8_0":
        scale = g.abs().amax(-1, keepdim=True) / 127
        return ((g / scale.clamp_min(1e-20)).round() * scale.half().float()).reshape(x.shape)
    half = {"q4_0": 8, "q5_0": 16}[kind]
    extreme = g.gather(-1, g.abs().argmax(-1, keepdim=True))
    scale = extreme / -half
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    code = (g * inverse + half + 0.5).floor().clamp(0, 2 * half - 1)
    return ((code - half) * scale.half().float()).reshape(x.shape)
