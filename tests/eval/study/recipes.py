"""Recipes from before there was a tile format. A name says widths, then what is not the default
of formats.SIDE."""


def recipe(name, key, value, **more):
    return dict(name=name, k=key, v=value, **more)


def both(name, key=None, value=None, **shared):
    """The same code for K and V; `key` and `value` override."""
    names = ("sinks", "tail", "softmax_bias", "mean_bits", "choices", "allocate")
    top = {k: shared.pop(k) for k in names if k in shared}
    return recipe(name, dict(shared, **(key or {})), dict(shared, **(value or {})), **top)


PLAIN = {"basis": "hadamard", "mean": "stored"}
ATTENTION = {"key": {"weight": "attention"}}
FISHER = {"weight": "fisher"}
RECIPES = []


def add(*arguments, **more):
    RECIPES.append(both(*arguments, **more))


def peers():
    for kind in ("q8_0", "q5_1", "q5_0", "q4_0"):
        for sinks in (0, 4):
            add(f"{kind} + Hadamard = llama.cpp S={sinks}", code=kind, basis="hadamard",
                mean="none", period=0, sinks=sinks)
    add("q4_0 + Hadamard + mean", code="q4_0", basis="hadamard", period=0)
    add("q4_0 + Hadamard, in block", code="q4_0", basis="hadamard", mean="none")


def plain():
    for bits in (8, 4, 3, 2):
        code = "uniform"
        add(f"cq{bits} plain uniform", bits=bits, code=code, **PLAIN)
        add(f"cq{bits} plain uniform no mean", bits=bits, code=code, basis="hadamard", mean="none")
        if bits < 8:
            add(f"cq{bits} plain Lloyd", bits=bits, **PLAIN)
            add(f"cq{bits} plain Lloyd un-rotated", bits=bits, key={"period": 1}, **PLAIN)
    for k, v in ((4, 3), (4, 2), (3, 2)):
        add(f"cq{k}k{v}v plain Lloyd", key={"bits": k}, value={"bits": v}, **PLAIN)


def balanced():
    for bits in (4, 3, 2):
        name = f"cq{bits} "
        add(name + "balanced", bits=bits)
        add(name + "balanced uniform", bits=bits, code="uniform")
        add(name + "balanced un-rotated", bits=bits, key={"period": 1})
        add(name + "balanced period 32", bits=bits, key={"period": 32})
        add(name + "balanced mean before rotation", bits=bits, key={"mean": "plain"})
        add(name + "balanced, attention weights", bits=bits, **ATTENTION)
        add(name + "balanced, Fisher", bits=bits, **FISHER)
        add(name + "balanced, K Fisher", bits=bits, key=FISHER)
        add(name + "balanced no token scale", bits=bits, scale="none")
        add(name + "channels16 water", bits=bits, basis="channels16", channel_widths="water")
        add(name + "channels water", bits=bits, basis="channels", channel_widths="water")


def feedback():
    for bits in (4, 3, 2):
        name = f"cq{bits} feedback "
        for power in (0.25, 0.15, 0.08, 0.0):
            add(f"{name}power {power}", bits=bits, beam=1, power=power)
        for power in (0.08, 0.0):
            add(f"{name}even power {power}", bits=bits, beam=1, power=power, basis="even")
        for power in (0.25, 0.08):
            add(f"{name}power {power} beam 8", bits=bits, beam=8, power=power)
        add(name + "attention power 0.08", bits=bits, beam=1, power=0.08, **ATTENTION)
        add(name + "Fisher power 0.08", bits=bits, beam=1, power=0.08, **FISHER)
        add(name + "attention power 0.08 un-rotated", bits=bits, beam=1, power=0.08,
            key={"weight": "attention", "period": 1})


def vector():
    add("cq2 balanced E8P", bits=2, code="e8p", scales=(-1, 1))
    for bits in (2, 3):
        for window in (8, 10, 12):
            add(f"cq{bits} balanced trellis L={window}", bits=bits, code="trellis", window=window,
                scales=(-1, 1))


def mixed():
    for k, v in ((4, 3), (4, 2), (3, 2), (5, 4), (5, 3)):
        add(f"cq{k}k{v}v balanced", key={"bits": k}, value={"bits": v})


def best(name, bits, period=128, power=0.1, key=None, value=None, **more):
    """Mean out before rotation, attention weights, feedback."""
    keys = dict({"mean": "plain", "weight": "attention", "period": period}, **(key or {}))
    shared = dict({"beam": 8, "power": power}, **more)
    add(f"cq{bits} best{name}", bits=bits, key=keys, value=value, **shared)


def combined():
    for bits in (4, 3, 2):
        best("", bits)
        best(" without feedback", bits, power=0.25, beam=0)
        best(" beam 1", bits, beam=1)
        best(" stored mean", bits, key={"mean": "stored"})
        best(" un-rotated", bits, period=1)
        best(" uniform", bits, code="uniform")
        best(" fitted levels", bits, code="fitted")
        best(" block mean", bits, block_mean=True)
        best(" softmax bias", bits, softmax_bias=True)
        for weight in ("fisher", "attention"):
            low, high = max(1, bits - 2), bits + 2
            best(f" widths per head by {weight}", bits, key={"weight": weight},
                 value={"weight": weight}, allocate={
                     "mean": bits, "choices": (low, high), "weight": weight})
        best(" trellis L=8 beam 32", bits, code="trellis", window=8, beam=32)
        if bits < 4:
            for gain in (1.03, 1.07):
                best(f" K gain {gain}", bits, key={"gain": gain})
        for power in (0.05, 0.15):
            best(f" power {power}", bits, power=power)
        best(" scales finer", bits, scales=(-5, -4, -3, -2, -1, 0, 1, 2, 3))
    for bits in (3, 2):
        best(" trellis L=12 beam 64", bits, code="trellis", window=12, beam=64)
        best(" un-rotated trellis L=8 beam 32", bits, period=1, code="trellis", window=8, beam=32)
        best(" stored mean trellis L=8 beam 32", bits, key={"mean": "stored"}, code="trellis",
             window=8, beam=32)
    for bits in (4, 3, 2):
        best(" period 32", bits, period=32)
    for bits in (8, 6, 5):
        best(" without feedback", bits, power=0.25, beam=0)


def mixed_widths():
    trellis = {"code": "trellis", "window": 12, "beam": 64}
    for k, v, value in ((4, 3, {}), (4, 2, {}), (3, 2, {}), (5, 4, {}), (4, 2, trellis),
                        (3, 2, trellis)):
        best("", k, value=dict(value, bits=v))
        RECIPES[-1]["name"] = f"cq{k}k{v}v best" + (", V trellis L=12" if value else "")
    for sinks, tail in ((0, 0), (4, 128)):
        for bits in (4, 3, 2):
            best(f" S={sinks} R={tail}", bits, sinks=sinks, tail=tail)
    for mean, choices in ((4, (3, 4, 5)), (3, (2, 3, 4)), (2, (1, 2, 3))):
        best(" widths per layer by KLD", mean, beam=1, mean_bits=mean, choices=choices)


for part in (combined, mixed_widths, peers, balanced, feedback, vector, mixed, plain):
    part()
