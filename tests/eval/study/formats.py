"""A recipe as a format: per layer and side the basis, the code, the scale; K and V in, K and V out.

A side is a dict; its keys and defaults are SIDE. `bits_per_element` counts codes and token scales;
means and bases belong to the model (read once), block headers are below 0.001 bit.
"""

import torch

from study import bases, codes, cq

SIDE = {
    "bits": 4,             # per value; 16: not coded
    "code": "lloyd",       # lloyd, fitted (levels of the side's own calibration), uniform, trellis,
                           # e8p, or a type of llama.cpp such as q4_0
    "window": 0,           # of the trellis, in bits; 0: no memory
    "basis": "balanced",   # bases.make_basis, or none
    "power": 0.25,
    "weight": "queries",   # of keys: queries, attention or fisher; of values: output (queries),
                           # attention or fisher
    "mean": "stored",      # none; stored: of the stored keys; plain: of the un-rotated keys, added
                           # back turned to each position
    "period": 128,         # keys are rotated back to the last multiple; 1: un-rotated, 0: post-RoPE
    "beam": 0,             # 0: every coordinate by itself; else noise feedback with so many paths
    "scale": "log8",       # log8: 8 bits, 1/16 octave; none: one for all tokens
    "scales": (-4, -2, 0, 2),  # sixteenths of an octave around the token's rms that are tried
    "gain": 1.0,           # the coded scale is multiplied by this
    "block_mean": False,   # the mean of each 128 tokens apart, 8 bits a channel
    "channel_widths": None,    # with basis channels/channels16: "water" fills widths by lambda
    "seed": 1,
}
BLOCK = 128
GGML_BITS = {"q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5}
LLOYD_DISTORTION = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.0025, 0.00064, 0.00016, 0.00004)


def snap(scale):
    """To the grid of the stored 8-bit logarithm."""
    return torch.exp2((16 * torch.log2(scale.clamp_min(2.0 ** -8))).round() / 16)


def water_fill(spread, bits, group):
    """Widths per coordinate: each next bit of a group goes where it saves the most error."""
    d = spread.shape[-1]
    sums = spread.reshape(-1, d // group, group).sum(-1)
    widths = torch.zeros(sums.shape, dtype=torch.long)
    table = torch.tensor(LLOYD_DISTORTION)
    for h in range(len(sums)):
        for _ in range(bits * d // group):
            w = widths[h]
            gain = sums[h].cpu() * (table[w] - table[(w + 1).clamp_max(8)])
            widths[h, gain.argmax()] += 1
    return widths.repeat_interleave(group, dim=1)


class Side:
    """One layer's keys or values in one recipe; heads are worked on together."""

    def __init__(self, spec, rows, weight):
        self.spec = spec
        self.widths = None
        self.mean = rows.mean(1, keepdim=True) if spec["mean"] == "stored" else 0 * rows[:, :1]
        centred = rows - self.mean
        covariance = centred.transpose(1, 2) @ centred / rows.shape[1]
        heads, d, _ = covariance.shape
        if spec["basis"] == "none":
            t = torch.eye(d, dtype=rows.dtype, device=rows.device).expand(heads, d, d)
            w = weight
        else:
            t, w = bases.make_basis(covariance, weight, spec["basis"], spec["power"], spec["seed"])
        deviation = (t @ covariance @ t.transpose(1, 2)).diagonal(dim1=1, dim2=2).sqrt()
        if spec["code"] not in GGML_BITS:
            t = t / deviation[..., None]
            w = deviation[:, :, None] * w * deviation[:, None, :]
        if spec["channel_widths"] == "water":
            group = 16 if spec["basis"] == "channels16" else 1
            self.widths = water_fill(w.diagonal(dim1=1, dim2=2), spec["bits"], group).to(t.device)
        if spec["code"] in GGML_BITS:  # codes every coordinate by itself
            w = torch.eye(d, dtype=t.dtype, device=t.device).expand(heads, d, d)
        w = bases.regular(w, 1e-6)
        self.factor = torch.linalg.cholesky(w.cpu()).transpose(1, 2).float().to(t.device)
        self.t, self.inverse = t.float(), torch.linalg.inv(t.cpu()).float().to(t.device)
        self.mean = self.mean.float()
        self.scale = None
        self.bits = [spec["bits"]] * heads
        if spec["code"] == "fitted":
            self.fit(rows)

    def spread(self):
        """What an error of one unit in every coordinate costs, per head; with feedback the
        geometric mean counts."""
        squared = self.factor.diagonal(dim1=1, dim2=2).square()
        if self.spec["beam"]:
            return squared.log().mean(1).exp() * squared.shape[1]
        return self.factor.square().sum((1, 2))

    def unit(self, x, beam):
        """Codes of unit-scale coordinates, read back; heads of one width together."""
        if self.widths is not None:
            return self.unit_by_channel(x)
        out = torch.empty_like(x)
        for bits in sorted(set(self.bits)):
            heads = [h for h, own in enumerate(self.bits) if own == bits]
            out[heads] = self.unit_of_width(x[heads], self.factor[heads], bits, beam)
        return out

    def unit_by_channel(self, x):
        out = torch.zeros_like(x)
        for width in self.widths.unique().tolist():
            here = (self.widths == width)[:, None, :].expand_as(x)
            if width:
                out[here] = codes.nearest(x[here], codes.lloyd_levels(width))
        return out

    def unit_of_width(self, x, factor, bits, beam):
        spec = self.spec
        window = max(spec["window"], bits)
        if spec["code"] == "e8p":
            return codes.e8p(x)
        if spec["code"] == "uniform":
            table = codes.uniform_levels(bits).to(x.device)
        elif spec["code"] == "fitted":
            table = self.fitted[bits]
        else:
            table = codes.trellis_table(window, bits, x.device)
        if beam:
            return codes.search(x, factor, table, window, bits, beam)
        return codes.viterbi(x, table, window, bits) if window > bits else codes.nearest(x, table)

    def fit(self, rows):
        """Levels for this side's own unit coordinates, without feedback."""
        y = (rows.float() - self.mean) @ self.t.transpose(1, 2)
        y = (y / y.square().mean(-1, keepdim=True).sqrt()).reshape(-1)[::7]
        self.fitted = {}
        for bits in (1, 2, 3, 4, 5):
            levels = codes.lloyd_levels(bits).to(y.device)
            for _ in range(20):
                index = torch.bucketize(y, (levels[1:] + levels[:-1]) / 2)
                total = torch.zeros_like(levels).scatter_add_(0, index, y)
                levels = total / torch.bincount(index, minlength=len(levels)).clamp_min(1)
            self.fitted[bits] = levels

    def loss(self, error):
        return (error @ self.factor.transpose(1, 2)).square().sum(-1)

    def coded(self, y):
        spec = self.spec
        if spec["code"] in GGML_BITS:
            return codes.ggml(y, spec["code"])
        heads, n, d = y.shape
        if spec["scale"] == "none":
            return self.unit(y, spec["beam"])
        rms = y.square().mean(-1).sqrt()
        # All candidates at once: [heads, candidates * n, d].
        steps = torch.tensor(spec["scales"], device=y.device) / 16
        scale = snap(rms[:, None] * torch.exp2(steps)[None, :, None])[..., None]
        unit = self.unit((y[:, None] / scale).reshape(heads, -1, d), min(spec["beam"], 1))
        unit = unit.reshape(heads, len(steps), n, d)
        loss = self.loss((y[:, None] - scale * unit).reshape(heads, -1, d))
        best_loss, pick = loss.reshape(heads, len(steps), n).min(1)
        pick = pick[:, None, :, None]
        best = unit.gather(1, pick.expand(-1, -1, -1, d))[:, 0]
        best_scale = scale.gather(1, pick)[:, 0]
        if spec["beam"] > 1:
            best = self.unit(y / best_scale, spec["beam"])
            best_loss = self.loss(y - best_scale * best)
        ry, rb = y @ self.factor.transpose(1, 2), best @ self.factor.transpose(1, 2)
        refit = snap(((ry * rb).sum(-1) / rb.square().sum(-1).clamp_min(1e-20)).clamp_min(1e-6))
        refit = refit[..., None]
        scale = torch.where((self.loss(y - refit * best) < best_loss)[..., None], refit, best_scale)
        self.scale = spec["gain"] * scale[..., 0]
        return spec["gain"] * scale * best

    def roundtrip(self, x):
        """[batch, heads, tokens, d], in stored coordinates."""
        if self.spec["bits"] >= 16:
            return x
        batch, heads, tokens, d = x.shape
        rows = x.permute(1, 0, 2, 3).reshape(heads, -1, d) - self.mean
        mean = self.mean
        if self.spec["block_mean"]:
            own = rows.reshape(heads, -1, BLOCK, d).mean(2, keepdim=True)
            step = own.abs().amax(-1, keepdim=True) / 127
            own = ((own / step).round() * step).expand(-1, -1, BLOCK, -1).reshape(rows.shape)
            rows, mean = rows - own, mean + own
        read = self.coded(rows @ self.t.transpose(1, 2)) @ self.inverse.transpose(1, 2) + mean
        return read.reshape(heads, batch, tokens, d).permute(1, 0, 2, 3)


class Format:
    """A recipe on a calibrated model: what hook.CACHE.format calls."""

    def __init__(self, model, calibration, recipe):
        self.model, self.recipe = model, recipe
        self.sinks, self.tail = recipe.get("sinks", 4), recipe.get("tail", 0)
        self.anchors, self.plain, self.k, self.v, self.error = {}, {}, {}, {}, {}
        for layer in range(model.layers):
            self.k[layer] = self.make_keys(layer, calibration)
            self.v[layer] = self.make_values(layer, calibration)
        if recipe.get("allocate"):
            self.allocate(calibration, **recipe["allocate"])
        for layer in range(model.layers if recipe.get("softmax_bias") else 0):
            rows = calibration.rows(self.stored(layer, calibration.data[layer][1]))[:, :8192]
            error = self.k[layer].roundtrip(rows.float()[None])[0] - rows
            error = error / self.k[layer].scale[..., None]
            self.error[layer] = (error.transpose(1, 2) @ error / error.shape[1]).float()

    def make_keys(self, layer, calibration):
        spec = self.side("k", layer)
        key = calibration.data[layer][1]
        self.anchors[layer] = bases.Anchors(self.model, layer, spec["period"])
        weight = calibration.key_weight(layer, spec["period"], spec["weight"])
        if self.is_cq("k"):
            if spec["pairs"]:
                self.plain[layer] = self.varying_mean(calibration, layer, spec["pairs"])
            return cq.CqSide(spec, self.stored(layer, key), calibration.sinks, weight)
        if spec["mean"] == "plain":
            self.plain[layer] = calibration.plain_key_mean(layer).float()
        return Side(spec, calibration.rows(self.stored(layer, key)), weight)

    def varying_mean(self, calibration, layer, pairs):
        """The un-rotated keys' mean where it moves most inside a block, 0 elsewhere."""
        mean, half = calibration.plain_key_mean(layer), self.model.head_dim // 2
        rows = calibration.stored_keys(layer, cq.BLOCK)
        rows = rows - rows.mean(1, keepdim=True)
        covariance = rows.transpose(1, 2) @ rows / rows.shape[1]
        precision = torch.linalg.inv(bases.regular(covariance, 1e-5)).diagonal(dim1=1, dim2=2)
        angles = self.anchors[layer].offset_angles(cq.BLOCK).double()
        still = torch.complex(angles.cos(), angles.sin()).mean(0).abs() ** 2
        moved = (mean[:, :half] ** 2 + mean[:, half:] ** 2) * (1 - still) \
            * (precision[:, :half] + precision[:, half:])
        least = moved.sort(1, descending=True).values[:, min(pairs, half) - 1, None]
        return (mean * (moved >= least).repeat(1, 2)).float()

    def make_values(self, layer, calibration):
        spec = self.side("v", layer)
        value, weight = calibration.data[layer][2], calibration.value_weight(layer, spec["weight"])
        if self.is_cq("v"):
            share = calibration.neighbour_share(layer) if spec["diffuse"] else None
            return cq.CqSide(spec, value, calibration.sinks, weight, share)
        return Side(spec, calibration.rows(value), weight)

    def is_cq(self, name):
        return self.recipe[name].get("code") == "cq"

    def allocate(self, calibration, mean, choices, weight):
        """Widths per layer, side and head: from the least up, each next bit where it saves most by
        the weights' own measure (Fisher: of the loss; attention: of the layer's output relative to
        the residual stream)."""
        model, table = self.model, torch.tensor(LLOYD_DISTORTION)
        tiles = []
        for layer in range(model.layers):
            norm = calibration.residual[layer] if weight == "attention" else 1.0
            for side in (self.k[layer], self.v[layer]):
                for head, spread in enumerate((side.spread() / norm).tolist()):
                    tiles.append((spread, side.bits, head))
        for _, bits, head in tiles:
            bits[head] = choices[0]
        for _ in range(round((mean - choices[0]) * len(tiles))):
            def gain(tile):
                spread, bits, head = tile
                if bits[head] + 1 > choices[-1]:
                    return -1
                return spread * (table[bits[head]] - table[bits[head] + 1]).item()
            _, bits, head = max(tiles, key=gain)
            bits[head] += 1

    def side(self, name, layer):
        spec = dict(cq.SPEC if self.is_cq(name) else SIDE, **self.recipe[name])
        widths = self.recipe.get("widths")
        if widths:
            spec["bits"] = widths[f"{name}{layer}"]
        return spec

    def stored(self, layer, key):
        stored = self.anchors[layer].to_stored(key)
        if layer in self.plain:
            stored = stored - self.turned_mean(layer, key.shape[2])
        return stored

    def turned_mean(self, layer, tokens):
        from study import hook
        mean = self.plain[layer][:, None, :].expand(-1, tokens, -1)
        return hook.rotate(mean, self.anchors[layer].offset_angles(tokens), 1)

    def keys(self, layer, key):
        read = self.k[layer].roundtrip(self.stored(layer, key))
        if layer in self.plain:
            read = read + self.turned_mean(layer, key.shape[2])
        return self.anchors[layer].from_stored(read)

    def values(self, layer, value):
        return self.v[layer].roundtrip(value)

    def score_bias(self, layer, query, scaling):
        """The mean of exp(noise) over a key's error: + q^T E q scale^2 / 2 for every coded key."""
        if layer not in self.error:
            return None
        batch, heads, tokens, d = query.shape
        groups = heads // self.model.kv_heads
        scale = self.k[layer].scale.reshape(-1, batch, tokens).square().clone()
        scale[..., :self.sinks] = 0
        angles = self.anchors[layer].angles(tokens)
        period = self.anchors[layer].period or tokens

        def bias(h):
            e = self.error[layer][h // groups]
            out = query.new_zeros(batch, tokens, tokens)
            from study import hook
            for b in range(0, tokens, period):
                q = hook.rotate(query[:, h], angles[b:b + 1], -1)
                noise = 0.5 * scaling ** 2 * ((q @ e) * q).sum(-1)
                out[:, :, b:b + period] = noise[..., None] * \
                    scale[h // groups, :, None, b:b + period]
            return out
        return bias

    def bits_per_element(self):
        d = self.model.head_dim
        total = 0
        for layer in range(self.model.layers):
            for side in (self.k[layer], self.v[layer]):
                spec = side.spec
                if isinstance(side, cq.CqSide):
                    total += side.bits_per_element(d)
                    continue
                if spec["code"] in GGML_BITS:
                    total += GGML_BITS[spec["code"]]
                    continue
                total += sum(side.bits) / len(side.bits)
                total += 8 / d if spec["bits"] < 16 and spec["scale"] == "log8" else 0
                total += 8 / BLOCK if spec["block_mean"] else 0
        return total / (2 * self.model.layers)
