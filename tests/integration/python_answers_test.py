"""The Python package: several answers to a question, how likely their tokens were, and corpora as
files."""
import io
import os
import unittest

from harness import IntegrationTest, prose
from python_packages import make_importable

make_importable()
import corpusd  # noqa: E402


class PythonAnswersTest(IntegrationTest):
    def connect(self, daemon):
        client = corpusd.Client(daemon.socket)
        self.addCleanup(client.close)
        return client

    def with_corpus(self, words=400):
        daemon = self.daemon()
        client = self.connect(daemon)
        client.wait(client.ingest("a", texts={"a.txt": prose(1, words)}))
        return daemon, client

    def test_several_answers_and_how_likely_their_tokens_were(self):
        daemon, client = self.with_corpus()
        options = ("-n", "3", "--temperature", "1", "--seed", "5", "--logprobs", "2")
        told = self.ask(daemon, "a", "what is stored?", *options)["answers"]
        sampled = {"max_tokens": 12, "temperature": 1.0, "seed": 5, "n": 3, "logprobs": 2}
        answer = client.ask("a", "what is stored?", **sampled)
        self.assertEqual(len(set(choice.text for choice in answer.answers)), 3)
        self.assertEqual((answer.text, answer.finish_reason),
                         (answer.answers[0].text, answer.answers[0].finish_reason))
        for choice, expected in zip(answer.answers, told, strict=True):
            self.assertEqual((choice.index, choice.text, choice.stop, choice.tokens),
                             (expected["index"], expected["answer"], expected["stop"],
                              expected["tokens"]))
            self.assertEqual(
                [(t.token, list(t.bytes), t.id, t.logprob, [o.id for o in t.top])
                 for t in choice.logprobs],
                [(t["token"], t["bytes"], t["id"], t["logprob"], [o["id"] for o in t["top"]])
                 for t in expected["logprobs"]])
            self.assertEqual({len(t.top) for t in choice.logprobs}, {2})
        texts, tokens = ["", "", ""], [0, 0, 0]
        for piece in client.stream("a", "what is stored?", **sampled):
            texts[piece.answer_index] += piece
            tokens[piece.answer_index] += len(piece.logprobs)
        self.assertEqual(texts, [choice.text for choice in answer.answers])
        self.assertEqual(tokens, [choice.tokens for choice in answer.answers])
        self.assertEqual(client.ask("a", "why?", max_tokens=2).answers[0].logprobs, ())
        for wrong in ({"n": -1}, {"n": 1000}, {"logprobs": 1000}, {"repetition_window": -1}):
            with self.assertRaises(corpusd.UsageError):
                client.ask("a", "why?", **wrong)

    def test_a_bundle_moves_a_corpus_to_another_daemon(self):
        daemon, client = self.with_corpus()
        path, seen = os.path.join(self.folder, "a.bundle"), []
        exported = client.export("a", path, progress=lambda *done: seen.append(done))
        with open(path, "rb") as file:
            content = file.read()
        told = daemon.ctl("export", "a", path + ".2", "-o", "json").json()
        self.assertEqual((exported.blocks, exported.bytes, exported.sha256),
                         (told["blocks"], told["bytes"], told["sha256"]))
        with open(path + ".2", "rb") as file:
            self.assertEqual(file.read(), content)
        self.assertEqual(seen[-1], (exported.blocks, exported.blocks))
        self.assertEqual(os.listdir(self.folder).count("a.bundle.partial"), 0)
        with self.assertRaises(corpusd.UsageError):
            client.export("a", path)
        buffer = io.BytesIO()
        client.export("a", buffer)
        self.assertEqual(buffer.getvalue(), content)
        client.export("a", path, overwrite=True)

        other = self.connect(self.daemon())
        imported = other.import_(path, name="b")
        corpus = client.get("a")
        self.assertEqual((imported.corpus.name, imported.corpus.tokens, imported.corpus.blocks),
                         ("b", corpus.tokens, corpus.blocks))
        self.assertEqual(other.ask("b", "what is stored?", max_tokens=12).text,
                         client.ask("a", "what is stored?", max_tokens=12).text)
        buffer.seek(0)
        self.assertEqual(other.import_(buffer).corpus.name, "a")

    def test_bundles_that_cannot_be_made_or_read(self):
        _, client = self.with_corpus(100)
        path = os.path.join(self.folder, "x.bundle")
        with self.assertRaises(corpusd.NotFoundError):
            client.export("nobody", path)
        self.assertEqual([n for n in os.listdir(self.folder) if n.startswith("x.")], [])
        with self.assertRaises(corpusd.NotFoundError):
            client.export("a", os.path.join(self.folder, "no", "x.bundle"))
        with self.assertRaises(corpusd.NotFoundError):
            client.import_(path)
        with self.assertRaises(corpusd.AlreadyExistsError):
            buffer = io.BytesIO()
            client.export("a", buffer)
            client.import_(io.BytesIO(buffer.getvalue()))
        with self.assertRaises(corpusd.IntegrityError):
            damaged = bytearray(buffer.getvalue())
            damaged[len(damaged) // 2] ^= 1
            client.import_(io.BytesIO(damaged), name="b")
        with self.assertRaises(corpusd.IntegrityError):
            client.import_(io.BytesIO(b"no bundle" * 1000), name="c")
        # What came of a damaged one is kept for a better copy, and never asked.
        self.assertEqual([c.name for c in client.corpora() if c.state == "ready"], ["a"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
