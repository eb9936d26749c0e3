"""What a question attends to: the scores of a corpus's blocks, the hit in each, and the tokens kept
of the chosen blocks in the order they are attended to.

A Scene is one corpus as the daemon would hold it: documents in windows, K and V of every token, the
lexical index, and the questions with their un-rotated queries, computed over the preamble alone.
"""

import torch

from study import lexical
from study import retrieval_model as models
from study import retrieval_scores as scores

MARGIN = 16          # tokens of the neighbours that a block's lexical terms include
LEXICAL_WEIGHT = 2
SEMANTIC_WEIGHT = 3
SUFFIX_BEHIND = 5    # the template's tokens behind a question: end, newline, start, role, newline
SUFFIX_BEFORE = 2    # the newlines before it


class Chat:
    """The ChatML around a corpus and a question, and the end of a sentence in tokens."""

    SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.start = tokenizer.token_to_id("<|im_start|>")
        self.end = tokenizer.token_to_id("<|im_end|>")
        self.prefix = ([self.start] + self.ids("system\n" + self.SYSTEM) + [self.end] +
                       self.ids("\n") + [self.start] + self.ids("user\n"))
        self.stops = [self.end, tokenizer.token_to_id("<|endoftext|>")]

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def suffix(self, question):
        return (self.ids("\n\n" + question) + [self.end] + self.ids("\n") + [self.start] +
                self.ids("assistant\n"))


class Prefix:
    """Un-rotated K and V of the preamble, [L, 1, G, tokens, D]; and a store without tokens."""

    def __init__(self, model, ids):
        shape = (model.L, 1, model.G, len(ids), model.D)
        self.k = torch.zeros(shape, dtype=model.kept, device=model.device)
        self.v = torch.zeros(shape, dtype=model.kept, device=model.device)

        def keep(layer, k, v):
            self.k[layer], self.v[layer] = k, v
        model.prefill(torch.tensor([ids], device=model.device), keep)


class Nothing:
    def __init__(self, model):
        zero = torch.zeros(model.G, 1, model.D, dtype=model.kept, device=model.device)
        self.k = self.v = [zero] * model.L


class Scene:
    """One corpus in windows of `window` tokens with `overlap` before them, and its questions."""

    def __init__(self, model, chat, corpus, window, overlap):
        self.model, self.chat, self.corpus = model, chat, corpus
        self.prefix = Prefix(model, chat.prefix)
        self.store = models.Store(model, chat.prefix, corpus.documents, window, overlap)
        self.blocks = scores.Blocks(corpus.documents, model.device)
        self.questions = corpus.questions
        self.flat = [token for document in corpus.documents for token in document]
        self.suffixes = [chat.suffix(q.text) for q in self.questions]
        self.gold = torch.tensor([self.blocks.of(q.document, q.token) for q in self.questions],
                                 device=model.device)
        self.tasks = {}
        for i, question in enumerate(self.questions):
            self.tasks.setdefault(question.task, []).append(i)
        self.queries = self.tap(models.Context.gather(model, Nothing(model), self.prefix,
                                                      [[] for _ in self.questions]))

    def tap(self, context):
        """The questions' queries when asked over a context."""
        answer = models.Answer(self.model, context, self.suffixes, 1, self.stops(), taps=True)
        return scores.Queries(torch.stack(answer.question_taps), [len(s) for s in self.suffixes],
                              SUFFIX_BEFORE, SUFFIX_BEHIND, self.model.device)

    def stops(self):
        return torch.tensor(self.chat.stops, device=self.model.device)

    def lexical(self, terms, k1, b, margin=MARGIN):
        """BM25 of every question over every block, [B, blocks]."""
        texts = []
        for document, begin, count in zip(self.blocks.documents, self.blocks.begins,
                                          self.blocks.counts):
            ids = self.corpus.documents[document][max(0, begin - margin):begin + count + margin]
            texts.append(self.chat.tokenizer.decode(ids))
        index = lexical.Bm25(texts, terms, k1, b)
        rows = [torch.from_numpy(index.scores(q.text)) for q in self.questions]
        return torch.stack(rows).float().to(self.model.device)

    def head_scores(self, heads, name, rotated=False, keys=None):
        """One variant's scores of some heads: {head: [B, blocks]}; keys: other keys by layer."""
        result = {}
        for layer in sorted({head // self.model.H for head in heads}):
            k = self.store.k[layer] if keys is None else keys[layer]
            found = scores.variants(*scores.reduce_blocks(
                self.model, k, self.queries.q[layer], self.blocks, rotated), self.queries, (name,))
            for head in heads:
                if head // self.model.H == layer:
                    result[head] = found[name][:, head % self.model.H]
        return result

    def heads(self, heads, keys=None):
        found = self.head_scores(heads, "question.mass", keys=keys)
        return scores.z(sum(scores.z(s) for s in found.values()))

    def semantic(self, heads):
        found = self.head_scores(heads, "question.ztop", rotated=True)
        return scores.z(sum(found.values()))

    def hits(self, heads, ranked):
        """The token of most attention mass of `heads` in each ranked block. ranked: [B][n]."""
        index = torch.tensor(ranked, device=self.model.device)
        total = 0
        for head in heads:
            layer, h = divmod(head, self.model.H)
            q = self.queries.q[layer]
            _, sums = scores.reduce_blocks(self.model, self.store.k[layer], q, self.blocks, False)
            norm = sums[:, h].logsumexp(-1)
            k = self.store.k[layer][h // (self.model.H // self.model.G)][self.blocks.index[index]]
            s = torch.einsum("bmsd,btd->bmst", k.float(), q[:, h].float()) * self.model.D ** -0.5
            mass = (s - norm[:, None, None]).exp() * self.queries.own[:, None, None].float()
            total = total + mass.sum(-1)
        total = total.masked_fill(~self.blocks.valid[index], -1)
        return self.blocks.index[index].gather(2, total.argmax(-1, keepdim=True))[..., 0].tolist()

    def limits(self, block):
        """The first token of a block's document and the one behind it, in the corpus."""
        first = self.blocks.first_token
        document = self.blocks.documents[block]
        behind = first[document + 1] if document + 1 < len(first) else self.blocks.tokens
        return first[document], behind

    def block_tokens(self, block):
        begin = self.blocks.starts[block]
        return range(begin, begin + self.blocks.counts[block])

    def whole_blocks(self, ranked, order="best last"):
        blocks = {"best last": ranked[::-1], "best first": ranked, "corpus": sorted(ranked)}[order]
        return [token for block in blocks for token in self.block_tokens(block)]

    def spans(self, ranked, hits, side):
        """The tokens hit-side .. hit+side-1 of each block, within its document, best last; a token
        is kept where its best span has it."""
        taken, parts = set(), []
        for block, hit in zip(ranked, hits):
            low, high = self.limits(block)
            part = [t for t in range(max(low, hit - side), min(high, hit + side)) if t not in taken]
            taken.update(part)
            parts.append(part)
        return [token for part in parts[::-1] for token in part]

    def needle(self, question):
        """The blocks that hold a question's sentence: what a perfect choice attends to."""
        ends = (question.line_begin, question.line_end - 1)
        blocks = sorted({self.blocks.of(question.document, t) for t in ends})
        return [token for block in blocks for token in self.block_tokens(block)]

    def surrounding(self, question, size, random_):
        """`size` tokens of the corpus that hold the question's sentence somewhere."""
        at = self.blocks.first_token[question.document] + question.line_begin
        size = min(size, self.blocks.tokens)
        begin = at - random_.randrange(0, max(1, size - 60))
        begin = min(max(0, begin), self.blocks.tokens - size)
        return range(begin, begin + size)

    def text(self, tokens):
        return [self.flat[t] for t in tokens]


def quantized(keys, bits, mean, hadamard):
    """Keys [tokens, D] coded and decoded: mean out, Hadamard, absmax scale a token."""
    x = keys.float()
    matrix = torch.ones(1, 1, device=x.device)
    while matrix.shape[0] < x.shape[1]:
        top = torch.cat((matrix, matrix), 1)
        matrix = torch.cat((top, torch.cat((matrix, -matrix), 1)), 0)
    matrix = matrix / x.shape[1] ** 0.5 if hadamard else torch.eye(x.shape[1], device=x.device)
    center = x.mean(0, keepdim=True) if mean else torch.zeros_like(x[:1])
    y = (x - center) @ matrix
    most = 2 ** (bits - 1) - 1
    scale = y.abs().amax(-1, keepdim=True).clamp_min(1e-9) / most
    return ((y / scale).round().clamp(-most - 1, most) * scale @ matrix.T + center).to(keys.dtype)
