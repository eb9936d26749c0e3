"""The unmodified openai package against the daemon: over a Unix socket and over TCP, whole and
streamed, cancelled, many at once, errors as its typed exceptions.
"""
import asyncio
import json
import os
import re
import sys
import unittest

from harness import IntegrationTest, prose
from pypi_packages import require

MISSING = require("openai", "openai>=2,<4")
if MISSING:
    print("skipped: " + MISSING)
    sys.exit(0)

import openai  # noqa: E402

try:  # the one that openai uses
    import httpx2 as httpx
except ImportError:
    import httpx
QUESTION = "what is stored?"


class OpenAiTest(IntegrationTest):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "http")
        self.corpusd = self.daemon(http=f"unix:{self.path},127.0.0.1:0")
        self.port = int(re.search(r"http 127\.0\.0\.1:(\d+)", self.corpusd.log_text()).group(1))
        self.ingest(self.corpusd, "docs", prose(1, 400))
        transport = httpx.HTTPTransport(uds=self.path)
        self.unix = openai.OpenAI(base_url="http://localhost/v1", api_key="none", max_retries=0,
                                  http_client=httpx.Client(transport=transport))
        self.tcp = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none",
                                 max_retries=0)
        self.model = self.unix.models.list().data[0].id

    def tearDown(self):
        self.unix.close()
        self.tcp.close()
        super().tearDown()

    def chat(self, client, **options):
        return client.chat.completions.create(
            **{"model": self.model + "@docs", "max_tokens": 12, "temperature": 0,
               "messages": [{"role": "user", "content": QUESTION}], **options})

    def test_models_and_answers_are_those_of_corpusctl(self):
        expected = self.ask(self.corpusd, "docs", QUESTION)
        for client in (self.unix, self.tcp):
            ids = [model.id for model in client.models.list()]
            self.assertEqual(ids, [self.model, self.model + "@docs"])
            self.assertEqual(client.models.retrieve(self.model + "@docs").object, "model")
            answer = self.chat(client)
            self.assertEqual(answer.choices[0].message.content, expected["answer"])
            self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens,
                             expected["usage"]["cached_tokens"])
            self.assertEqual(answer.usage.completion_tokens,
                             expected["usage"]["completion_tokens"])
            named = self.chat(client, model=self.model,
                              extra_body={"cached_content": "corpora/docs", "no_such_field": 1})
            self.assertEqual(named.choices[0].message.content, expected["answer"])
            self.assertEqual(named.model, self.model + "@docs")

    def test_streams_equal_whole_answers(self):
        for client in (self.unix, self.tcp):
            whole = self.chat(client)
            chunks = list(self.chat(client, stream=True, stream_options={"include_usage": True}))
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            self.assertEqual(text, whole.choices[0].message.content)
            self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
            self.assertEqual(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
            self.assertEqual(chunks[-1].choices, [])
            self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_conversations_and_plain_completions(self):
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"},
                 {"role": "assistant", "content": "two"},
                 {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        over = self.chat(self.unix, messages=turns)
        self.assertGreater(over.usage.prompt_tokens, self.chat(self.unix).usage.prompt_tokens)
        plain = self.chat(self.unix, model=self.model, messages=turns)
        self.assertEqual(plain.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertGreater(plain.usage.completion_tokens, 0)
        for model in (self.model, self.model + "@docs"):
            whole = self.tcp.completions.create(model=model, prompt="once upon", max_tokens=8,
                                                temperature=0)
            parts = self.tcp.completions.create(model=model, prompt="once upon", max_tokens=8,
                                                temperature=0, stream=True)
            self.assertEqual("".join(part.choices[0].text for part in parts),
                             whole.choices[0].text)

    def test_a_closed_stream_cancels_its_answer(self):
        for client in (self.unix, self.tcp):
            before = self.corpusd.log_text().count("finish_reason=cancelled")
            stream = self.chat(client, stream=True, max_tokens=5000)
            for _ in zip(range(3), stream):
                pass
            stream.close()
            self.wait_for("the end of the answer", lambda n=before: self.corpusd.log_text().count(
                "finish_reason=cancelled") > n)

    def test_errors_are_typed_exceptions(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(self.unix, model="gpt-4o")
        self.assertEqual((caught.exception.code, caught.exception.param),
                         ("model_not_found", "model"))
        with self.assertRaises(openai.NotFoundError):
            self.chat(self.tcp, model=self.model + "@nobody", stream=True)
        for field, value in (("temperature", -1), ("max_tokens", 0), ("messages", [])):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.chat(self.unix, **{field: value})
            self.assertEqual(caught.exception.param, field)
            self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(self.unix, model=self.model,
                      messages=[{"role": "user", "content": prose(2, 9000)}])
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.PermissionDeniedError):
            self.unix.post("/corpora", body={"name": "x", "sources": "/etc/passwd"}, cast_to=object)
        made = {"name": "new", "contents": prose(3, 40)}
        created = self.unix.post("/corpora", body=made, cast_to=object)
        self.assertEqual(created["name"], "new")
        with self.assertRaises(openai.ConflictError):
            self.unix.post("/corpora", body=made, cast_to=object)

    def test_many_at_once_get_the_answers_that_they_get_alone(self):
        questions = [f"question number {i}?" for i in range(8)]

        async def ask_all():
            client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.port}/v1",
                                        api_key="none", max_retries=4)
            async with client:
                return await asyncio.gather(*(
                    client.chat.completions.create(
                        model=self.model + "@docs", max_tokens=8, temperature=0,
                        messages=[{"role": "user", "content": question}])
                    for question in questions))
        together = [a.choices[0].message.content for a in asyncio.run(ask_all())]
        alone = [self.chat(self.unix, max_tokens=8, messages=[
            {"role": "user", "content": question}]).choices[0].message.content
            for question in questions]
        self.assertEqual(together, alone)

    def test_raw_responses_carry_ids(self):
        raw = self.unix.chat.completions.with_raw_response.create(
            model=self.model, max_tokens=1, messages=[{"role": "user", "content": "hi"}],
            extra_headers={"X-Request-Id": "mine-1"})
        self.assertEqual(raw.headers["x-request-id"], "mine-1")
        self.assertEqual(json.loads(raw.text)["object"], "chat.completion")


if __name__ == "__main__":
    unittest.main()
