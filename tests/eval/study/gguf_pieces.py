"""SentencePiece's BPE over a GGUF's own pieces and scores, for models whose GGUF holds no merges:
transformers 5.17 makes merges up for them and splits Gemma's words wrongly."""

import heapq

import gguf


class Pieces:
    def __init__(self, pieces, scores):
        self.pieces, self.scores = {piece: i for i, piece in enumerate(pieces)}, scores

    def encode(self, text):
        """Neighbours are joined, the best score first, leftmost first among equals; what has no
        piece becomes bytes."""
        parts = list(text.replace(" ", "\u2581"))
        before, after = list(range(-1, len(parts) - 1)), list(range(1, len(parts))) + [-1]
        heap = []

        def offer(i, j):
            if i >= 0 and j >= 0 and parts[i] + parts[j] in self.pieces:
                joined = parts[i] + parts[j]
                heapq.heappush(heap, (-self.scores[self.pieces[joined]], i, j, joined))

        for i in range(len(parts) - 1):
            offer(i, i + 1)
        while heap:
            _, i, j, joined = heapq.heappop(heap)
            if parts[i] is None or parts[j] is None or after[i] != j \
                    or parts[i] + parts[j] != joined:
                continue
            parts[i], parts[j], after[i] = joined, None, after[j]
            if after[i] >= 0:
                before[after[i]] = i
            offer(before[i], i)
            offer(i, after[i])
        ids = []
        for part in parts:
            if part in self.pieces:
                ids.append(self.pieces[part])
            elif part is not None:
                ids += [self.pieces[f"<0x{byte:02X}>"] for byte in part.encode("utf-8")]
        return ids


def read(path):
    """RETURNS the file's Pieces, or None where its tokenizer is of another kind."""
    fields = gguf.GGUFReader(path).fields
    if fields["tokenizer.ggml.model"].contents() != "llama":
        return None
    return Pieces(fields["tokenizer.ggml.tokens"].contents(),
                  fields["tokenizer.ggml.scores"].contents())
