"""Wider codes for the tokens that are looked at most: some tokens of each tile at more bits.

A token's error counts as often as queries attend to it, and that is very uneven. `hot` of a recipe
says the share of a block's tokens, the bits they get, and by what they are chosen: "oracle", the
attention they do get in the tested text; "model", a regression from the key and the value alone,
fitted to the calibration's attention, as an encoder could use it; "value", the largest values;
"random". An index byte a hot token is counted.
"""

import torch

from study import bases, cq, formats, hook

REACH = 512  # queries behind a token that are counted


def attention_mass(model, layer, query, key, reach=None):
    """[batch, kv_heads, tokens]: sum over later queries (the next `reach`, or all) of p^2, each
    query head with the square of its output weights."""
    module = model.attention_module(layer)
    scaling = getattr(module, "scaling", None) or module.head_dim ** -0.5
    tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
    mask = hook.visible(tokens, getattr(module, "sliding_window", None), key.device)
    counted = mask.tril(-1)
    if reach:
        counted = counted & ~torch.ones_like(mask).tril(-reach - 1)
    mass = torch.zeros(key.shape[0], key.shape[1], tokens, device=key.device)
    for h in range(query.shape[1]):
        g = h // groups
        size = model.output_weight(layer, g)[h % groups].square().sum()
        p = torch.softmax((query[:, h] @ key[:, g].transpose(1, 2) * scaling)
                          .masked_fill(~mask, -1e30), -1)
        mass[:, g] += size * (p.square() * counted).sum(1)
    return mass


class Predictor:
    """log(mass) of a token from its un-rotated key and its value, by ridge regression."""

    def __init__(self, model, layer, calibration):
        query, key, value = calibration.data[layer]
        self.anchors = bases.Anchors(model, layer, 1)
        first, last = calibration.sinks, key.shape[2] - REACH
        mass = attention_mass(model, layer, query, key, REACH)[:, :, first:last]
        x = torch.cat((self.anchors.to_stored(key), value), -1)[:, :, first:last]
        x = x.permute(1, 0, 2, 3).reshape(key.shape[1], -1, x.shape[3])
        self.mean, self.deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        f = self.features(x).double()
        goal = mass.permute(1, 0, 2).reshape(key.shape[1], -1, 1).clamp_min(1e-12).log().double()
        gram = f.transpose(1, 2) @ f
        ridge = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None]
        gram = gram + ridge * torch.eye(f.shape[2], dtype=f.dtype, device=f.device)
        self.weights = torch.linalg.solve(gram, f.transpose(1, 2) @ goal)
        left = (goal - f @ self.weights).var(1)
        self.explained = (1 - left / goal.var(1))[:, 0].tolist()
        self.deviation_of_log = goal.std(1)[:, 0].tolist()

    def features(self, x):
        x = (x - self.mean) / self.deviation
        return torch.cat((x, x * x, torch.ones_like(x[..., :1])), -1)

    def __call__(self, key, value):
        batch, heads, tokens, d = key.shape
        x = torch.cat((self.anchors.to_stored(key), value), -1)
        x = x.permute(1, 0, 2, 3).reshape(heads, batch * tokens, 2 * d)
        score = self.features(x).double() @ self.weights
        return score.reshape(heads, batch, tokens).permute(1, 0, 2)


class HotFormat(formats.Format):
    """A Format whose hot tokens are coded wider; hook.attention calls look() first."""

    def __init__(self, model, calibration, recipe):
        super().__init__(model, calibration, recipe)
        self.hot = recipe["hot"]
        wide = dict(recipe, **{side: dict(recipe[side], bits=self.hot["bits"])
                               for side in self.hot["sides"]})
        self.wide = formats.Format(model, calibration, wide)
        self.predictors = {}
        if self.hot["by"] == "model":
            self.predictors = {layer: Predictor(model, layer, calibration)
                               for layer in range(model.layers)}
        self.mask = None

    def look(self, layer, query, key, value):
        by = self.hot["by"]
        if by == "oracle":
            score = attention_mass(self.model, layer, query, key)
        elif by == "model":
            score = self.predictors[layer](key, value)
        elif by == "value":
            score = value.square().sum(-1)
        else:
            score = torch.rand(value.shape[:3], device=value.device)
        score = score.clone()
        score[:, :, :self.sinks] = -torch.inf
        batch, heads, tokens = score.shape
        count = round(self.hot["share"] * cq.BLOCK)
        blocks = score.reshape(batch, heads, -1, cq.BLOCK)
        mask = torch.zeros_like(blocks, dtype=torch.bool)
        mask.scatter_(3, blocks.topk(count, dim=3).indices, True)
        self.mask = mask.reshape(batch, heads, tokens, 1)

    def keys(self, layer, key):
        read = super().keys(layer, key)
        if "k" in self.hot["sides"]:
            read = torch.where(self.mask, self.wide.keys(layer, key), read)
        return read

    def values(self, layer, value):
        read = super().values(layer, value)
        if "v" in self.hot["sides"]:
            read = torch.where(self.mask, self.wide.values(layer, value), read)
        return read

    def bits_per_element(self):
        narrow, wide = super().bits_per_element(), self.wide.bits_per_element()
        index = 8 / self.model.head_dim * len(self.hot["sides"]) / 2
        return narrow + self.hot["share"] * (wide - narrow + index)
