"""The asyncio client of the Python package against a real daemon."""
import asyncio
import contextlib
import gc
import os
import time
import unittest

from harness import IntegrationTest, PATIENCE, prose
from python_packages import make_importable

make_importable()
import corpusd  # noqa: E402


class PythonAsyncTest(IntegrationTest):
    def run_with(self, scenario, **options):
        """Runs `scenario(client, daemon)` over a daemon that has the corpus `a`."""
        daemon = self.daemon(**options)

        async def whole():
            async with await corpusd.connect_async(daemon.socket) as client:
                await client.wait(await client.ingest("a", texts={"a.txt": prose(1, 400)}))
                await asyncio.wait_for(scenario(client, daemon), 120 * PATIENCE)

        asyncio.run(whole())

    async def until_idle(self, client):
        deadline = time.monotonic() + 20 * PATIENCE
        while (await client.df()).leases:
            self.assertLess(time.monotonic(), deadline, "a question goes on")
            await asyncio.sleep(0.02)

    def test_stream_and_answer_agree_with_the_synchronous_client(self):
        async def scenario(client, daemon):
            stream = await client.stream("a", "what is stored?", max_tokens=24)
            text = ""
            async for piece in stream:
                text += piece
            whole = await client.ask("a", "what is stored?", max_tokens=24)
            self.assertEqual(text, whole.text)
            self.assertEqual((await stream.answer()).usage, whole.usage)
            told = self.ask(daemon, "a")  # its first 12 tokens
            self.assertTrue(text.startswith(told["answer"].rstrip("\ufffd")))

        self.run_with(scenario)

    def test_forty_questions_and_short_calls_over_one_connection(self):
        async def scenario(client, _):
            one = await client.ask("a", "what is stored?", max_tokens=6)
            results = await asyncio.gather(
                *(client.ask("a", "what is stored?", max_tokens=6) for _ in range(40)),
                *(client.corpora() for _ in range(40)))
            self.assertEqual({answer.text for answer in results[:40]}, {one.text})
            self.assertEqual([[c.name for c in listed] for listed in results[40:]], [["a"]] * 40)

        self.run_with(scenario)

    def test_every_way_to_leave_cancels_the_question(self):
        async def by_aclose(client):
            stream = await client.stream("a", "why?", max_tokens=4000)
            await stream.__anext__()
            await stream.aclose()

        async def by_async_with(client):
            async with await client.stream("a", "why?", max_tokens=4000) as stream:
                await stream.__anext__()

        async def by_break(client):
            async for _ in await client.stream("a", "why?", max_tokens=4000):
                break
            gc.collect()

        async def by_generator_close(client):
            async def pieces():
                async with await client.stream("a", "why?", max_tokens=4000) as stream:
                    async for piece in stream:
                        yield piece

            generator = pieces()
            await generator.__anext__()
            await generator.aclose()

        async def by_task_cancel(client):
            task = asyncio.create_task(client.ask("a", "why?", max_tokens=4000))
            await asyncio.sleep(0.2)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def scenario(client, daemon):
            for count, leave in enumerate((by_aclose, by_async_with, by_break,
                                           by_generator_close, by_task_cancel), 1):
                await leave(client)
                await self.until_idle(client)
                cancelled = daemon.log_text().count("finish_reason=cancelled")
                self.assertEqual(cancelled, count, leave.__name__)

        self.run_with(scenario)

    def test_errors_and_timeouts(self):
        async def scenario(client, daemon):
            with self.assertRaises(corpusd.NotFoundError):
                await client.get("nobody")
            with self.assertRaises(corpusd.DeadlineError):
                await client.ask("a", "why?", max_tokens=6000, timeout=0.3)
            await self.until_idle(client)
            daemon.kill()
            with self.assertRaises(corpusd.UnreachableError):
                await client.version()
            with self.assertRaises(corpusd.UnreachableError):
                await corpusd.connect_async(os.path.join(self.folder, "nobody"))

        self.run_with(scenario)

    def test_files_updates_plans_and_jobs(self):
        async def scenario(client, _):
            path = self.write("b.txt", prose(2, 300))
            plan = await client.plan(path, mode="segmented")
            seen = []
            corpus = await client.wait(await client.ingest("b", path, mode="segmented"),
                                       progress=seen.append)
            self.assertAlmostEqual(plan.tokens, corpus.tokens, delta=0.1 * corpus.tokens)
            self.assertEqual(seen[-1].state, "done")
            self.write("b.txt", prose(2, 300) + " and more of it")
            updated = await client.wait(await client.update("b"))
            self.assertGreater(updated.tokens, corpus.tokens)
            kinds = [(job.corpus, job.state) for job in await client.jobs()]
            self.assertIn(("b", "done"), kinds)
            await client.pin("b", reason="async")
            self.assertEqual((await client.get("b")).pinned.reason, "async")
            await client.unpin("b")
            await client.rename("b", "c")
            self.assertGreater((await client.warm("c")).blocks, 0)
            self.assertGreater((await client.evict("c", tier="host")).bytes, 0)
            self.assertEqual((await client.verify("c", progress=lambda *_: None)).damaged, 0)
            await client.delete("c")
            self.assertNotIn("c", [c.name for c in await client.corpora()])

        self.run_with(scenario)

    def test_several_answers_and_bundles(self):
        async def scenario(client, _):
            options = {"max_tokens": 8, "temperature": 1.0, "seed": 3, "n": 2, "logprobs": 1}
            answer = await client.ask("a", "why?", **options)
            texts = ["", ""]
            async for piece in await client.stream("a", "why?", **options):
                texts[piece.answer_index] += piece
                self.assertGreater(len(piece.logprobs), 0)
            self.assertEqual(texts, [choice.text for choice in answer.answers])
            path = os.path.join(self.folder, "a.bundle")
            exported = await client.export("a", path)
            self.assertEqual(exported.bytes, os.path.getsize(path))
            imported = await client.import_(path, name="b", progress=lambda *_: None)
            self.assertEqual(imported.corpus.blocks, exported.blocks)
            with self.assertRaises(corpusd.AlreadyExistsError):
                await client.import_(path, name="b")
            with self.assertRaises(corpusd.NotFoundError):
                await client.export("nobody", path, overwrite=True)
            self.assertEqual(exported.bytes, os.path.getsize(path))

        self.run_with(scenario)


if __name__ == "__main__":
    unittest.main(verbosity=2)
