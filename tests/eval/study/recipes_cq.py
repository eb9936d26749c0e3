"""Recipes of the cq tile formats (study/cq.py): the formats themselves, then what was asked."""


def cq(name, bits, key=None, value=None, sinks=4, contexts=None, tail=0, hot=None, **shared):
    """bits: of keys and values, or of each; key, value and shared override cq.SPEC."""
    both = bits if isinstance(bits, tuple) else (bits, bits)
    sides = [dict(shared, code="cq", bits=width, **(own or {}))
             for width, own in zip(both, (key, value))]
    sides[1].setdefault("weight", "output")
    for side in sides:
        if side["bits"] == 8:
            side.setdefault("levels", "byte")
    recipe = {"name": name, "k": sides[0], "v": sides[1], "sinks": sinks, "tail": tail}
    if contexts:
        recipe["contexts"] = contexts
    if hot:
        recipe["hot"] = hot
    return recipe


E4M4 = {"mantissa": 4, "lowest": -7, "scales": (-2, 0, 2)}
TRELLIS = {"levels": "trellis", "window": 8, "beam": 32, "scales": (0,)}


def peers():
    for kind in ("q8_0", "q4_0"):
        side = {"code": kind, "basis": "hadamard", "mean": "none", "period": 0}
        yield {"name": f"{kind} + Hadamard", "k": side, "v": side, "sinks": [0, 4]}


def formats():
    for bits in (8, 4, 3, 2):
        yield cq(f"cq{bits}", bits, sinks=[4, 1, 0])
        yield cq(f"cq{bits} S=4 R=128", bits, tail=128)
    for key, value in ((4, 3), (4, 2), (3, 2), (8, 4), (3, 4), (2, 4), (2, 3)):
        yield cq(f"cq{key}k{value}v", (key, value))


def scales():
    for bits in (4, 3, 2):
        yield cq(f"cq{bits} least cost, not refitted", bits, **dict(E4M4, scales=(-2, -1, 0, 1)),
                 refit=None)
        yield cq(f"cq{bits} E4M4", bits, **E4M4)
        for refit in (None, 0, 0.5):
            yield cq(f"cq{bits} refit {refit}", bits, refit=refit)
        for tried in ((0,), (-3, 3), (-6, 0, 6), (-8, -4, 0, 4, 8), (-12, -6, 0, 6, 12)):
            yield cq(f"cq{bits} scales {','.join(map(str, tried))}", bits, scales=tried)
        yield cq(f"cq{bits} cosine", bits, pick="cosine")
        yield cq(f"cq{bits} unbiased without weights", bits, metric="plain")


def means():
    off = {"block_mean": False}
    for bits in (8, 4, 3, 2):
        yield cq(f"cq{bits} no block mean", bits, **off)
        yield cq(f"cq{bits} block mean of keys only", bits, value=off)
        yield cq(f"cq{bits} block mean of values only", bits, key=off)
        yield cq(f"cq{bits} no calibrated mean", bits, mean=False)
    for bits in (4, 3, 2):
        for pairs in (8, 12):
            yield cq(f"cq{bits} mean of {pairs} pairs before rotation", bits, key={"pairs": pairs})
        yield cq(f"cq{bits} un-rotated", bits, key={"period": 1})


def levels():
    for bits in (4, 3, 2):
        for kind in ("uniform", "cubic", "float"):
            yield cq(f"cq{bits} {kind} levels", bits, levels=kind)
        yield cq(f"cq{bits} no feedback", bits, beam=0)


def bases():
    for bits in (4, 3, 2):
        for power in (0.0, 0.05, 0.15, 0.2):
            yield cq(f"cq{bits} values power {power}", bits, value={"power": power})
            yield cq(f"cq{bits} keys power {power}", bits, key={"power": power})
        yield cq(f"cq{bits} values by attention", bits, value={"weight": "attention"})
        yield cq(f"cq{bits} basis of what the block mean leaves", bits, covariance="block")
        for kind in ("least", "unbiased"):
            yield cq(f"cq{bits} decoder {kind}", bits, decoder=kind)


def slow():
    for bits in (4, 3, 2):
        yield cq(f"cq{bits} beam 8", bits, beam=8)
        yield cq(f"cq{bits} trellis L=8", bits, **TRELLIS)
    for key, value in ((4, 2), (3, 2), (4, 3)):
        yield cq(f"cq{key}k{value}v, V trellis L=8", (key, value), value=TRELLIS)
    yield cq("cq2 trellis L=12", 2, **dict(TRELLIS, window=12, beam=64))
    yield cq("cq2 e8p", 2, levels="e8p", scales=(0,))
    yield cq("cq2 V diffused", 2, value={"diffuse": 1.0})
    for by in ("oracle", "model", "value", "random"):
        yield cq(f"cq4k2v, an eighth of V 4 bits, by {by}", (4, 2),
                 hot={"sides": "v", "share": 1 / 8, "bits": 4, "by": by})
        yield cq(f"cq2, an eighth 4 bits, by {by}", 2,
                 hot={"sides": "kv", "share": 1 / 8, "bits": 4, "by": by})
    for mean in (3, 2.5):
        yield dict(cq(f"widths by layer, mean {mean}", 3), mean_bits=mean, choices=(2, 3, 4))


RECIPES = [*peers(), *formats(), *scales(), *means(), *levels(), *bases(), *slow()]
