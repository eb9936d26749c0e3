"""langchain-openai, unmodified, against the daemon: answers, streams, batches, conversations and
chains over a corpus, usage with what was cached, and errors as its exceptions.
"""
import asyncio
import sys
import unittest

from harness import prose
from http_clients import QUESTION, HttpClientTest
from pypi_packages import require

MISSING = require("langchain", "langchain-openai>=1,<2")
if MISSING:
    print("skipped: " + MISSING)
    sys.exit(0)

import openai  # noqa: E402
from langchain_core.exceptions import ContextOverflowError  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage  # noqa: E402
from langchain_core.output_parsers import StrOutputParser  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402
from langchain_openai import ChatOpenAI, OpenAI  # noqa: E402


class LangChainTest(HttpClientTest):
    def chat(self, corpus="docs", **options):
        model = self.model_id + ("@" + corpus if corpus else "")
        return ChatOpenAI(**{"model": model, "base_url": self.url, "api_key": "none",
                             "temperature": 0, "max_tokens": 12, "max_retries": 0, **options})

    def test_an_answer_and_its_stream_are_those_of_corpusctl(self):
        expected = self.expected()
        answer = self.chat().invoke(QUESTION)
        self.assertEqual(answer.content, expected["answer"])
        self.assertEqual(answer.response_metadata["finish_reason"], expected["finish_reason"])
        usage = answer.usage_metadata
        self.assertEqual(usage["input_token_details"]["cache_read"],
                         expected["usage"]["cached_tokens"])
        self.assertEqual(usage["output_tokens"], expected["usage"]["completion_tokens"])
        whole = None
        for chunk in self.chat(stream_usage=True).stream(QUESTION):
            whole = chunk if whole is None else whole + chunk
        self.assertEqual(whole.content, expected["answer"])
        self.assertEqual(whole.usage_metadata["output_tokens"], usage["output_tokens"])
        self.assertEqual(whole.usage_metadata["input_token_details"]["cache_read"],
                         expected["usage"]["cached_tokens"])

    def test_a_corpus_named_in_the_body(self):
        chat = self.chat(corpus="", extra_body={"cached_content": "corpora/docs"})
        answer = chat.invoke(QUESTION)
        self.assertEqual(answer.content, self.expected()["answer"])
        self.assertEqual(answer.response_metadata["model_name"], self.model_id + "@docs")

    def test_batches_and_coroutines_give_the_same_answers(self):
        questions = [f"question number {i}?" for i in range(4)]
        alone = [self.chat().invoke(question).content for question in questions]
        self.assertEqual([a.content for a in self.chat().batch(questions)], alone)

        async def ask_all():
            answers = await self.chat().abatch(questions)
            pieces = [chunk.content async for chunk in self.chat().astream(questions[0])]
            return [a.content for a in answers], "".join(pieces)
        self.assertEqual(asyncio.run(ask_all()), (alone, alone[0]))

    def test_conversations_and_chains(self):
        turns = [SystemMessage("Be brief."), HumanMessage("one"), AIMessage("two"),
                 HumanMessage([{"type": "text", "text": QUESTION}])]
        longer = self.chat().invoke(turns).usage_metadata["input_tokens"]
        self.assertGreater(longer, self.chat().invoke(QUESTION).usage_metadata["input_tokens"])
        template = ChatPromptTemplate.from_messages([("human", "{question}")])
        chain = template | self.chat() | StrOutputParser()
        self.assertEqual(chain.invoke({"question": QUESTION}), self.expected()["answer"])
        self.assertEqual("".join(chain.stream({"question": QUESTION})), self.expected()["answer"])

    def test_sampling_options_act(self):
        expected = self.expected()["answer"]
        cut = self.chat(stop=[expected[3:5]]).invoke(QUESTION).content
        self.assertEqual(cut, expected[:expected.index(expected[3:5])])
        drawn = [self.chat(temperature=1.5, seed=7, top_p=0.9).invoke(QUESTION).content
                 for _ in range(2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], expected)
        likely = self.chat(logprobs=True, top_logprobs=2).invoke(QUESTION)
        tokens = likely.response_metadata["logprobs"]["content"]
        self.assertEqual(len(tokens), likely.usage_metadata["output_tokens"])
        self.assertEqual({len(token["top_logprobs"]) for token in tokens}, {2})
        several = self.chat(n=3, temperature=1, seed=1).generate([[HumanMessage(QUESTION)]])
        self.assertEqual(len({g.text for g in several.generations[0]}), 3)

    def test_plain_completions(self):
        plain = OpenAI(model=self.model_id + "@docs", base_url=self.url, api_key="none",
                       temperature=0, max_tokens=8, max_retries=0, batch_size=1)
        whole = plain.invoke("once upon")
        self.assertTrue(whole)
        self.assertEqual("".join(plain.stream("once upon")), whole)
        self.assertEqual(plain.batch(["once upon", "a time"])[0], whole)

    def test_errors_are_its_exceptions(self):
        with self.assertRaises(openai.NotFoundError):
            self.chat(corpus="nobody").invoke(QUESTION)
        with self.assertRaises(openai.BadRequestError):
            self.chat(top_p=2).invoke(QUESTION)
        for corpus in ("", "docs"):
            with self.assertRaises(ContextOverflowError):
                self.chat(corpus=corpus).invoke(prose(2, 9000))


if __name__ == "__main__":
    unittest.main()
