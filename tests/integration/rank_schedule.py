"""A discrete simulation of how ranks compute a text together: every rank, step and transfer of a
layer. A rank computes one thing at a time, and each way of its link carries one transfer at a time.
What `corpusctl plan --ranks` says is held to it."""
import dataclasses

UNIT = 8192            # rows are dealt in such units
RANK_TOKENS = 16384    # rows of a rank in one segment
TRANSFER_S = 20e-6     # until the first byte of a transfer


@dataclasses.dataclass
class Model:
    """A llama whose layers all see everything: pages in bf16, queries and states in float32."""
    layers: int
    hidden: int
    feed_forward: int
    q_heads: int
    kv_heads: int
    head_dim: int

    def linear_flop(self):
        query, key = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        weights = self.hidden * (2 * query + 2 * key) + 3 * self.hidden * self.feed_forward
        return 2 * weights * self.layers

    def pair_flop(self):
        return 4 * self.q_heads * self.head_dim

    def kv_bytes(self):
        return 2 * self.kv_heads * self.head_dim * 2

    def query_bytes(self):
        return self.q_heads * self.head_dim * 4

    def state_bytes(self):
        return self.q_heads * (self.head_dim + 2) * 4


def deal(tokens, ranks):
    """Runs of rows (first, count) of each rank, two at most, in zigzag: from both ends."""
    units = tokens // UNIT
    pieces = 2 * ranks if units >= 2 * ranks else ranks
    dealt = [[] for _ in range(ranks)]
    for i in range(pieces):
        begin = units * i // pieces * UNIT
        end = tokens if i + 1 == pieces else units * (i + 1) // pieces * UNIT
        dealt[i if i < ranks else 2 * ranks - 1 - i].append((begin, end - begin))
    return dealt


class Layer:
    """One layer of one segment."""

    def __init__(self, model, ranks, tokens, history, rates):
        self.model, self.ranks, self.tokens, self.history = model, ranks, tokens, history
        self.flop, self.link = rates["attention_flop_per_s"], rates["link_bytes_per_s"]
        self.dealt = deal(tokens, ranks)
        self.out, self.into = [0.0] * ranks, [0.0] * ranks

    def transfer(self, source, target, ready, size):
        begin = max(ready, self.out[source], self.into[target])
        self.out[source] = self.into[target] = end = begin + TRANSFER_S + size / self.link
        return end

    def compute(self, reader, holder):
        pairs = 0.0
        for first, rows in self.dealt[reader]:
            pairs += rows * self.history / self.ranks
            for other, keys in self.dealt[holder]:
                pairs += rows * keys * (1 if other < first else 0.5 if other == first else 0)
        return pairs * self.model.pair_flop() / self.flop

    def seconds(self):
        queries = self.tokens * self.model.query_bytes()
        keys = queries > (self.tokens + self.history) * self.model.kv_bytes()
        return self.keys_travel() if keys else self.queries_travel()

    def keys_travel(self):
        """While a rank computes over the pages that it has, those of the next one arrive."""
        ranks = self.ranks
        size = (self.tokens + self.history) / ranks * self.model.kv_bytes()
        free, began = [0.0] * ranks, [0.0] * ranks
        for step in range(ranks):
            arrived = [self.transfer((r - step) % ranks, r,
                                     max(began[r], began[(r - step) % ranks]),
                                     size) if step else 0.0 for r in range(ranks)]
            began = [max(free[r], arrived[r]) for r in range(ranks)]
            free = [began[r] + self.compute(r, (r - step) % ranks) for r in range(ranks)]
        return max(free)

    def queries_travel(self):
        """All queries are sent at once; states go back as they are made; own rows come last."""
        ranks, rows = self.ranks, self.tokens / self.ranks
        arrived = {(step, r): self.transfer((r - step) % ranks, r, 0.0,
                                            rows * self.model.query_bytes())
                   for step in range(1, ranks) for r in range(ranks)}
        free, done = [0.0] * ranks, [0.0] * ranks
        for step in range(1, ranks + 1):
            for r in range(ranks):
                reader = (r - step) % ranks
                free[r] = max(free[r], arrived.get((step, r), 0.0)) + self.compute(reader, r)
                done[r] = max(done[r], free[r])
            for r in range(ranks if step < ranks else 0):
                reader = (r - step) % ranks
                done[reader] = max(done[reader], self.transfer(r, reader, free[r],
                                                               rows * self.model.state_bytes()))
        return max(done)


def simulate(model, ranks, tokens, rates):
    """Seconds of a text. rates: as `plan -o json` says them."""
    seconds = 0.0
    for first in range(0, tokens, RANK_TOKENS * ranks):
        count = min(RANK_TOKENS * ranks, tokens - first)
        seconds += model.layers * Layer(model, ranks, count, first, rates).seconds()
        seconds += count / ranks * model.linear_flop() / rates["linear_flop_per_s"]
    return seconds
