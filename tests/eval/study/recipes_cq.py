"""Recipes of the cq tile formats (study/cq.py): the format itself, then what is asked about it."""


def cq(name, bits, key=None, value=None, sinks=4, contexts=None, **shared):
    """bits: of keys and values; key, value and shared override cq.SPEC."""
    both = bits if isinstance(bits, tuple) else (bits, bits)
    sides = [dict(shared, code="cq", bits=width, **(own or {}))
             for width, own in zip(both, (key, value))]
    sides[1].setdefault("weight", "output")
    for side in sides:
        if side["bits"] == 8:
            side.setdefault("levels", "byte")
    recipe = {"name": name, "k": sides[0], "v": sides[1], "sinks": sinks}
    if contexts:
        recipe["contexts"] = contexts
    return recipe


def peers():
    for kind in ("q8_0", "q4_0"):
        side = {"code": kind, "basis": "hadamard", "mean": "none", "period": 0}
        yield {"name": f"{kind} + Hadamard", "k": side, "v": side, "sinks": [0, 4]}


def formats():
    for bits in (8, 4, 3, 2):
        yield cq(f"cq{bits}", bits, sinks=[4, 0])
    for key, value in ((4, 3), (4, 2), (3, 2), (8, 4), (3, 4), (2, 4), (8, 2)):
        yield cq(f"cq{key}k{value}v", (key, value))


def block_means():
    off = {"block_mean": False}
    for bits in (8, 4, 3, 2):
        yield cq(f"cq{bits} no block mean", bits, sinks=[4, 0], **off)
        yield cq(f"cq{bits} block mean of keys only", bits, sinks=[4, 0], value=off)
        yield cq(f"cq{bits} block mean of values only", bits, sinks=[4, 0], key=off)
        yield cq(f"cq{bits} basis of what the block mean leaves", bits, covariance="block")
        yield cq(f"cq{bits} block mean without the first 4", bits, sinks=[4, 0], skip=4)
        yield cq(f"cq{bits} no calibrated mean", bits, mean=False)


def scales():
    sets = [(o,) for o in range(-3, 4)]
    sets += [(-1, 1), (-1, 0), (-2, 0), (-1, 0, 1), (-2, 0, 2), (-2, -1, 0), (-1, 0, 1, 2),
             (-2, -1, 0, 1), (-3, -1, 1, 3), (-3, -2, -1, 0), (-3, -2, -1, 0, 1, 2, 3)]
    for bits in (4, 3, 2):
        for tried in sets:
            yield cq(f"cq{bits} scales {','.join(map(str, tried))}", bits, scales=tried,
                     contexts=[1024])
        for tried in ((0,), (-1, 1), (-2, -1, 0, 1)):
            yield cq(f"cq{bits} scales {','.join(map(str, tried))} refit", bits, scales=tried,
                     contexts=[1024], refit=True)


def levels():
    for bits in (4, 3, 2):
        for kind in ("uniform", "cubic", "float"):
            yield cq(f"cq{bits} {kind} levels", bits, levels=kind)
        yield cq(f"cq{bits} uniform levels, 6 scales", bits, levels="uniform",
                 scales=(-4, -3, -2, -1, 0, 1), contexts=[1024])
        yield cq(f"cq{bits} no feedback", bits, beam=0)
        yield cq(f"cq{bits} beam 8", bits, beam=8)


def bases():
    for bits in (4, 3, 2):
        for power in (0.0, 0.05, 0.15, 0.25):
            yield cq(f"cq{bits} values power {power}", bits, value={"power": power},
                     contexts=[1024])
            yield cq(f"cq{bits} keys power {power}", bits, key={"power": power}, contexts=[1024])
        yield cq(f"cq{bits} values by attention", bits, value={"weight": "attention"})
        for rounds in (1, 2, 4):
            yield cq(f"cq{bits} decoder fitted {rounds}", bits, decoder=rounds)


RECIPES = [*peers(), *formats(), *block_means(), *levels(), *bases(), *scales()]
