"""litellm, unmodified, against the daemon: answers, streams, usage, options and plain completions
over a corpus, as its OpenAI-compatible provider, and errors as its exceptions.
"""
import asyncio
import os
import sys
import unittest

from harness import prose
from http_clients import QUESTION, HttpClientTest
from pypi_packages import require

MISSING = require("litellm", "litellm>=1.60,<2", seconds=1200)
if MISSING:
    print("skipped: " + MISSING)
    sys.exit(0)

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no list of prices from the network
import litellm  # noqa: E402

litellm.telemetry = False


class LiteLlmTest(HttpClientTest):
    def options(self, corpus="docs", **options):
        model = self.model_id + ("@" + corpus if corpus else "")
        return {"model": "openai/" + model, "api_base": self.url, "api_key": "none",
                "temperature": 0, "max_tokens": 12, "num_retries": 0, "max_retries": 0,
                "messages": [{"role": "user", "content": QUESTION}], **options}

    def test_an_answer_and_its_stream_are_those_of_corpusctl(self):
        expected = self.expected()
        answer = litellm.completion(**self.options())
        self.assertEqual(answer.choices[0].message.content, expected["answer"])
        self.assertEqual(answer.choices[0].finish_reason, expected["finish_reason"])
        self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens,
                         expected["usage"]["cached_tokens"])
        chunks = list(litellm.completion(**self.options(
            stream=True, stream_options={"include_usage": True})))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, expected["answer"])
        self.assertEqual(chunks[-1].usage.completion_tokens, answer.usage.completion_tokens)
        rebuilt = litellm.stream_chunk_builder(chunks)
        self.assertEqual(rebuilt.choices[0].message.content, expected["answer"])

    def test_a_corpus_named_in_the_body(self):
        answer = litellm.completion(**self.options(
            corpus="", extra_body={"cached_content": "corpora/docs"}))
        self.assertEqual(answer.choices[0].message.content, self.expected()["answer"])

    def test_coroutines_and_options(self):
        async def ask_all():
            whole = await litellm.acompletion(**self.options())
            pieces = [chunk.choices[0].delta.content or ""
                      async for chunk in await litellm.acompletion(**self.options(stream=True))]
            return whole.choices[0].message.content, "".join(pieces)
        expected = self.expected()["answer"]
        self.assertEqual(asyncio.run(ask_all()), (expected, expected))
        cut = litellm.completion(**self.options(stop=[expected[3:5]]))
        self.assertEqual(cut.choices[0].message.content, expected[:expected.index(expected[3:5])])
        several = litellm.completion(**self.options(n=3, temperature=1, seed=1, logprobs=True,
                                                    top_logprobs=2))
        self.assertEqual(len({choice.message.content for choice in several.choices}), 3)
        self.assertEqual(len(several.choices[0].logprobs.content[0].top_logprobs), 2)

    def test_plain_completions(self):
        options = self.options(prompt="once upon")
        del options["messages"]
        options["model"] = "text-completion-openai/" + self.model_id + "@docs"
        whole = litellm.text_completion(**options).choices[0].text
        self.assertTrue(whole)
        parts = litellm.text_completion(**options, stream=True)
        self.assertEqual("".join(part.choices[0].text or "" for part in parts), whole)

    def test_errors_are_its_exceptions(self):
        with self.assertRaises(litellm.NotFoundError):
            litellm.completion(**self.options(corpus="nobody"))
        with self.assertRaises(litellm.BadRequestError):
            litellm.completion(**self.options(top_p=2))
        too_long = [{"role": "user", "content": prose(2, 9000)}]
        for corpus in ("", "docs"):
            with self.assertRaises(litellm.ContextWindowExceededError):
                litellm.completion(**self.options(corpus=corpus, messages=too_long))


if __name__ == "__main__":
    unittest.main()
