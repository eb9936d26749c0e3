"""Scores of a corpus's blocks for questions, from the un-rotated keys and queries of every head.

A question's tokens each give a score on every key token; per block these are reduced to a maximum
and to a log-sum-exp, then over the question's tokens in the ways of VARIANTS.
"""

import torch

BLOCK = 128
VARIANTS = ("last.max", "suffix.max", "question.max", "all.max", "question.top",
            "question.z", "all.z", "suffix.z", "question.ztop",
            "last.mass", "suffix.mass", "question.mass", "all.mass", "question.logmass")


class Blocks:
    """The blocks of a corpus: 128 tokens of one document each, the last of a document fewer."""

    def __init__(self, documents, device):
        self.starts, self.counts, self.documents, self.begins, self.first_token = [], [], [], [], []
        at = 0
        for i, document in enumerate(documents):
            self.first_token.append(at)
            for begin in range(0, len(document), BLOCK):
                self.starts.append(at + begin)
                self.counts.append(min(BLOCK, len(document) - begin))
                self.documents.append(i)
                self.begins.append(begin)
            at += len(document)
        self.tokens = at
        self.device = device
        slots = torch.arange(BLOCK)
        counts = torch.tensor(self.counts)[:, None]
        self.valid = (slots < counts).to(device)
        starts = torch.tensor(self.starts)[:, None]
        self.index = (starts + torch.minimum(slots, counts - 1)).to(device)
        self.at = {(d, b): i for i, (d, b) in enumerate(zip(self.documents, self.begins))}

    def __len__(self):
        return len(self.starts)

    def of(self, document, token):
        return self.at[document, token // BLOCK * BLOCK]


class Queries:
    """Un-rotated q of question suffixes: q [L, B, H, T, D]; which tokens are the question's own and
    which the template's behind it."""

    def __init__(self, q, lengths, own, behind, device):
        self.q = q
        self.lengths = torch.as_tensor(lengths, device=device)
        slots = torch.arange(q.shape[3], device=device)
        self.all = slots < self.lengths[:, None]
        self.behind = self.all & (slots >= self.lengths[:, None] - behind)
        self.own = self.all & ~self.behind & (slots >= own)
        self.last = slots == self.lengths[:, None] - 1


def reduce_blocks(model, keys, queries, blocks, rotated, chunk_bytes=2 << 30):
    """keys [G, N, D], queries [B, H, T, D] -> max and log-sum-exp over each block's tokens,
    [B, H, T, blocks] each."""
    rows, heads, count, width = queries.shape
    q = queries.float()
    if rotated:
        q = model.rotate(q, torch.full((count,), BLOCK, device=q.device))
    q = q.reshape(rows, model.G, heads // model.G * count, width).transpose(0, 1)
    q = q.reshape(model.G, -1, width) * width ** -0.5
    step = max(1, chunk_bytes // (rows * heads * count * BLOCK * 4))
    maxima, sums = [], []
    for begin in range(0, len(blocks), step):
        index = blocks.index[begin:begin + step]
        k = keys[:, index].float()
        if rotated:
            k = model.rotate(k, torch.arange(BLOCK, device=k.device))
        s = (q @ k.flatten(1, 2).transpose(1, 2)).view(model.G, -1, len(index), BLOCK)
        s.masked_fill_(~blocks.valid[begin:begin + step], float("-inf"))
        maxima.append(s.amax(-1))
        sums.append(s.logsumexp(-1))
    shape = (model.G, rows, heads // model.G, count, len(blocks))
    return tuple(torch.cat(x, -1).view(shape).transpose(0, 1).reshape(rows, heads, count, -1)
                 for x in (maxima, sums))


def z(x):
    """Standard scores over the blocks."""
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp_min(1e-6)


def mean_over(x, mask):
    """x [B, H, T, blocks], mask [B, T] -> [B, H, blocks]."""
    weight = mask.float() / mask.sum(-1, keepdim=True)
    return torch.einsum("bhtn,bt->bhn", x, weight)


def top_over(x, mask):
    return x.masked_fill(~mask[:, None, :, None], float("-inf")).amax(2)


def variants(maxima, sums, queries, names=VARIANTS):
    """RETURNS {name: [B, H, blocks]}."""
    masks = {"last": queries.last, "suffix": queries.behind, "question": queries.own,
             "all": queries.all}
    log_mass = sums - sums.logsumexp(-1, keepdim=True)
    standard = z(maxima)
    result = {}
    for name in names:
        which, how = name.split(".")
        mask = masks[which]
        if how == "max":
            result[name] = mean_over(maxima, mask)
        elif how == "top":
            result[name] = top_over(maxima, mask)
        elif how == "z":
            result[name] = mean_over(standard, mask)
        elif how == "ztop":
            result[name] = top_over(standard, mask)
        elif how == "mass":
            result[name] = mean_over(log_mass.exp(), mask).clamp_min(1e-30).log()
        elif how == "logmass":
            result[name] = mean_over(log_mass, mask)
    return result


def ranks(scores, gold):
    """scores [..., B, blocks], gold [B]: how many blocks score higher, ties half."""
    index = gold.view(*([1] * (scores.dim() - 2)), -1, 1).expand(*scores.shape[:-1], 1)
    own = scores.gather(-1, index)
    return (scores > own).sum(-1) + ((scores == own).sum(-1) - 1) / 2


def recall(rank, ks=(1, 4, 16, 48)):
    """rank [..., B] -> [..., ks]."""
    return torch.stack([(rank < k).float().mean(-1) for k in ks], -1)


def reciprocal(rank):
    return (1 / (1 + rank)).mean(-1)
