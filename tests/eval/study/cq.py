"""The cq tile formats' own arithmetic: integer levels, a scale byte a token, int8 block means.

A tile is 128 tokens of one layer, KV head, K or V. Coordinates y = T (x - mean), of unit variance
over the calibration; the block's mean m = int8 / 8 of y is stored apart; what is coded is
z = y - m, as scale[token] * level[code]. Nothing here makes the bytes; what they would say is read.
"""

import torch

from study import bases, codes

BLOCK = 128
MEAN_STEP = 1 / 8
LLOYD = {4: (6, 18, 31, 44, 58, 75, 96, 127), 3: (14, 45, 79, 127), 2: (38, 127), 1: (127,)}
LLOYD_UNIT = {4: 46.5, 3: 59.0, 2: 84.1, 1: 159.2}  # the level of a coordinate of 1
# Levels a t + b t^3 of odd t, for a reader that computes them.
CUBIC = {4: (5.95, 0.0112), 3: (13.6, 0.0851), 2: (37.46, 0.5417)}
BYTE8_UNIT = 21.0

SPEC = {
    "bits": 4,             # 16: not coded
    "levels": "lloyd",     # lloyd, uniform, cubic, byte (8 bits), float (Lloyd's, not rounded),
                           # trellis, e8p
    "window": 0,           # of the trellis, in bits
    "basis": "balanced",   # bases.make_basis, as power and seed
    "power": 0.1,
    "seed": 1,
    "weight": "attention",  # keys: queries, attention, fisher; values: output, attention, fisher
    "covariance": "total",  # of y, or "block": of what is left without the block's mean
    "period": 128,         # keys are rotated back to the last multiple; 1: un-rotated
    "mean": True,          # the calibrated mean is taken out
    "pairs": 0,            # keys: so many rotated pairs have their mean out before rotation
    "block_mean": True,
    "skip": 0,             # tokens at the start of the chain that do not count in block 0's mean
    "beam": 1,             # 0: no feedback; 1: greedy; more: so many prefixes are kept
    "scales": (-4, 0, 4),  # candidates around the byte of rms(z), in bytes
    "pick": "cost",        # the candidate of least cost, or of the largest cosine of R z and R z^
    "refit": 1,            # then the byte nearest to the least squares scale (0), or to the one
                           # with <R z^, R z> = <R z, R z>, unbiased (1; RaBitQ, 2405.12497), or
                           # between them; None: the candidate's own
    "metric": "weight",    # of that product: R, or "plain": none
    "mantissa": 5,         # bits of the scale byte, an unsigned float
    "lowest": -5,          # its least exponent
    "gain": 1.0,           # what a reader multiplies codes with
    "diffuse": 0.0,        # so much of a token's error, times the neighbours' share of its weight,
                           # is asked back of the next token of the block
    "decoder": None,       # "least": T^-1 is replaced by the least squares map from codes to x;
                           # "unbiased": by the one whose error does not hang on x
}


def scale_grid(spec, device):
    """The 256 values of a scale byte, rising."""
    byte, steps = torch.arange(256, device=device), 1 << spec["mantissa"]
    return (1 + (byte % steps) / steps) * torch.exp2((byte // steps + spec["lowest"]).float())


def nearest_byte(scale, grid):
    return torch.bucketize(scale, (grid[1:] + grid[:-1]) / 2)


def level_table(spec, device):
    """Levels in units of a coordinate, rising."""
    bits, kind = spec["bits"], spec["levels"]
    if kind == "float":
        return codes.lloyd_levels(bits).to(device)
    if kind == "uniform":
        return codes.uniform_levels(bits).to(device)
    half = LLOYD[bits] if bits in LLOYD else ()
    if kind == "cubic":
        a, b = CUBIC[bits]
        half = [round(a * t + b * t ** 3) for t in range(1, 1 << bits, 2)]
    table = [-level for level in reversed(half)] + list(half)
    return torch.tensor(table, dtype=torch.float32, device=device) / LLOYD_UNIT[bits]


def greedy(z, scale, pull, table):
    """Noise feedback, one choice a coordinate, for every candidate scale at once.

    z [heads, n, d]; scale [heads, candidates, n]; pull [heads, d, d] strictly upper. RETURNS what
    is read, [heads, candidates, n, d]."""
    heads, n, d = z.shape
    candidates = scale.shape[1]
    borders = (table[1:] + table[:-1]) / 2
    columns = z.transpose(1, 2)
    target = columns[:, :, None].expand(heads, d, candidates, n).contiguous()
    read = torch.empty_like(target)
    for j in reversed(range(d)):
        value = table[torch.bucketize(target[:, j] / scale, borders)] * scale
        read[:, j] = value
        if j:
            error = columns[:, j, None] - value
            target[:, :j].addcmul_(pull[:, :j, j, None, None], error[:, None])
    return read.permute(0, 2, 3, 1)


def block_covariance(x, sinks):
    """[batch, heads, tokens, d]: the covariance [heads, d, d] inside blocks, sinks left out."""
    batch, heads, tokens, d = x.shape
    blocks = x[:, :, BLOCK:] if tokens > BLOCK else x[:, :, sinks:]
    blocks = blocks.double().permute(1, 0, 2, 3).reshape(heads, -1, min(BLOCK, blocks.shape[2]), d)
    centred = (blocks - blocks.mean(2, keepdim=True)).reshape(heads, -1, d)
    return centred.transpose(1, 2) @ centred / centred.shape[1]


class CqSide:
    """One layer's keys or values; all KV heads together. `x` [batch, heads, tokens, d] are the
    calibration's, keys rotated by their slots; weight [heads, d, d] weighs an error of x."""

    def __init__(self, spec, x, sinks, weight, neighbours=None):
        self.spec = dict(SPEC, **spec)
        self.neighbours = neighbours  # [heads], Calibration.neighbour_share
        heads, d = x.shape[1], x.shape[3]
        self.bits = [self.spec["bits"]] * heads
        if self.spec["bits"] >= 16:
            return
        rows = x[:, :, sinks:].permute(1, 0, 2, 3).reshape(heads, -1, d).double()
        self.mean = rows.mean(1, keepdim=True)
        centred = rows - self.mean
        total = centred.transpose(1, 2) @ centred / rows.shape[1]
        covariance = total
        if self.spec["covariance"] == "block":
            covariance = block_covariance(x, sinks)
        t, _ = bases.make_basis(covariance, weight, self.spec["basis"], self.spec["power"],
                                self.spec["seed"])
        deviation = (t @ covariance @ t.transpose(1, 2)).diagonal(dim1=1, dim2=2).sqrt()
        if not self.spec["mean"]:
            self.mean = self.mean * 0
        self.mean = self.mean.float()
        self.weigh(t / deviation[..., None], weight)
        self.table = None
        if self.spec["levels"] not in ("byte", "trellis", "e8p"):
            self.table = level_table(self.spec, x.device)
        if self.spec["decoder"]:
            self.fit_decoder(x[:, :, :x.shape[2] // BLOCK * BLOCK], weight)

    def weigh(self, t, weight):
        inverse = torch.linalg.inv(t.cpu())
        own = bases.regular(inverse.transpose(1, 2) @ weight.cpu() @ inverse, 1e-6)
        factor = torch.linalg.cholesky(own).transpose(1, 2)
        diagonal = factor.diagonal(dim1=1, dim2=2)
        self.factor = factor.float().to(t.device)
        self.pull = (factor / diagonal[..., None]).triu(1).float().to(t.device)
        self.t, self.inverse = t.float(), inverse.float().to(t.device)

    def fit_decoder(self, x, weight):
        """x - mean by least squares from what a reader sees, z^ + m; T is its inverse then."""
        heads, d = x.shape[1], x.shape[3]
        self.blocks_a_chain = x.shape[2] // BLOCK
        rows = (x.permute(1, 0, 2, 3).reshape(heads, -1, d) - self.mean)
        seen = torch.cat([self.read(part @ self.t.transpose(1, 2))
                          for part in rows.split(BLOCK * 64, dim=1)], 1).double()
        keep = (torch.arange(rows.shape[1], device=x.device) % x.shape[2]) >= BLOCK
        seen, rows = seen[:, keep], rows[:, keep].double()
        other = seen if self.spec["decoder"] == "least" else rows
        gram = (seen.transpose(1, 2) @ other).cpu()  # rows = seen A^T: (other^T seen) A^T = ...
        best = torch.linalg.solve(gram.transpose(1, 2), (other.transpose(1, 2) @ rows).cpu())
        self.weigh(torch.linalg.inv(best.transpose(1, 2)).to(x.device), weight)

    def read(self, y):
        """[heads, blocks * 128, d] coordinates, as a reader gets them back."""
        heads, n, d = y.shape
        if not self.spec["block_mean"]:
            return self.diffused(y)
        blocks = y.reshape(heads, -1, BLOCK, d)
        own = blocks.mean(2, keepdim=True)
        if self.spec["skip"]:  # block 0 of each chain
            step = self.blocks_a_chain
            own[:, ::step] = blocks[:, ::step, self.spec["skip"]:].mean(2, keepdim=True)
        own = (own / MEAN_STEP).round().clamp(-127, 127) * MEAN_STEP
        own = own.expand(-1, -1, BLOCK, -1).reshape(y.shape)
        return self.diffused(y - own) + own

    def diffused(self, z):
        """Tokens of a block one after the other, each with a part of the error before it."""
        if not self.spec["diffuse"]:
            return self.coded(z)
        share = (self.spec["diffuse"] * self.neighbours)[:, None, None].float().to(z.device)
        blocks = z.reshape(z.shape[0], -1, BLOCK, z.shape[2])
        read = torch.empty_like(blocks)
        error = torch.zeros_like(blocks[:, :, 0])
        for t in range(BLOCK):
            read[:, :, t] = self.coded(blocks[:, :, t] + share * error)
            error = blocks[:, :, t] - read[:, :, t]
        return read.reshape(z.shape)

    def coded(self, z):
        spec = self.spec
        grid = scale_grid(spec, z.device)
        if spec["levels"] == "byte":
            need = z.abs().amax(-1) * (BYTE8_UNIT / 127)
            scale = grid[torch.searchsorted(grid, need).clamp_max(255)][..., None]
            return (z / scale * BYTE8_UNIT).round().clamp(-127, 127) * scale / BYTE8_UNIT
        byte = nearest_byte(z.square().mean(-1).sqrt(), grid)
        steps = torch.tensor(spec["scales"], device=z.device)
        scale = grid[(byte[:, None] + steps[None, :, None]).clamp(0, 255)]
        read = self.candidates(z, scale)
        rz = (z @ self.factor.transpose(1, 2))[:, None]
        rr = read @ self.factor[:, None].transpose(2, 3)
        zr, squared = (rz * rr).sum(-1), rr.square().sum(-1).clamp_min(1e-30)
        merit = 2 * zr - squared if spec["pick"] == "cost" else zr.abs() * zr / squared
        pick = merit.max(1, keepdim=True).indices
        read = read.gather(1, pick[..., None].expand(-1, -1, -1, z.shape[2]))[:, 0]
        if spec["refit"] is not None:
            scale, zr, squared = (x.gather(1, pick)[:, 0] for x in (scale, zr, squared))
            least = (zr / squared).clamp_min(1e-6)
            whole = rz[:, 0].square().sum(-1)
            if spec["metric"] == "plain":
                zr, whole = (z * read).sum(-1), z.square().sum(-1)
            unbiased = (whole / zr.clamp_min(1e-20)).minimum(4 * least)
            best = scale * least * (unbiased / least) ** spec["refit"]
            read = read * (grid[nearest_byte(best, grid)] / scale)[..., None]
        return read * spec["gain"]

    def candidates(self, z, scale):
        """What is read of z for each of scale [heads, candidates, n]: [heads, candidates, n, d]."""
        spec = self.spec
        if spec["levels"] == "e8p":
            return torch.stack([codes.e8p(z / s[..., None]) * s[..., None]
                                for s in scale.unbind(1)], 1)
        if spec["beam"] == 0:
            return codes.nearest(z[:, None] / scale[..., None], self.table) * scale[..., None]
        if spec["beam"] == 1 and spec["levels"] != "trellis":
            return greedy(z, scale, self.pull, self.table)
        window, table = spec["bits"], self.table
        if spec["levels"] == "trellis":
            window = spec["window"]
            table = codes.trellis_table(window, spec["bits"], z.device)
        return torch.stack([
            codes.search(z / s[..., None], self.factor, table, window, spec["bits"], spec["beam"])
            * s[..., None] for s in scale.unbind(1)], 1)

    def roundtrip(self, x):
        if self.spec["bits"] >= 16:
            return x
        batch, heads, tokens, d = x.shape
        self.blocks_a_chain = tokens // BLOCK
        y = (x.permute(1, 0, 2, 3).reshape(heads, -1, d) - self.mean) @ self.t.transpose(1, 2)
        read = self.read(y) @ self.inverse.transpose(1, 2) + self.mean
        return read.reshape(heads, batch, tokens, d).permute(1, 0, 2, 3)

    def bits_per_element(self, d):
        total = sum(self.bits) / len(self.bits)
        if self.spec["bits"] < 16:
            total += 8 / d + (8 / BLOCK if self.spec["block_mean"] else 0)
        return total
