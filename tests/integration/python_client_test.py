"""The Python package against a real daemon: every verb, many calls at once, every way to stop."""
import io
import os
import re
import signal
import threading
import time
import unittest

from harness import IntegrationTest, PATIENCE, ROOT, prose
from python_packages import make_importable

make_importable()
import corpusd  # noqa: E402
from corpusd import protocol  # noqa: E402


class PythonClientTest(IntegrationTest):
    def connect(self, daemon, **options):
        client = corpusd.Client(daemon.socket, **options)
        self.addCleanup(client.close)
        return client

    def with_corpus(self, words=400, **options):
        daemon = self.daemon(**options)
        client = self.connect(daemon)
        client.wait(client.ingest("a", texts={"a.txt": prose(1, words)}))
        return daemon, client

    def test_a_corpus_of_texts_is_made_asked_and_listed_as_corpusctl_says(self):
        daemon, client = self.with_corpus()
        told = self.show(daemon, "a")
        corpus = client.get("a")
        self.assertEqual(corpus.state, "ready")
        self.assertEqual((corpus.name, corpus.tokens, corpus.blocks, corpus.kv_format),
                         (told["name"], told["tokens"], told["blocks"], told["kv_format"]))
        self.assertEqual(corpus.bytes.stored, told["bytes"]["stored"])
        self.assertEqual([s.path for s in corpus.sources], ["a.txt"])
        self.assertEqual(sum(s.bytes for s in corpus.sources), len(prose(1, 400)))
        self.assertLess(abs((corpus.created_at - client.jobs()[-1].created_at).total_seconds()), 5)
        self.assertEqual([c.name for c in client.corpora()], ["a"])
        answer = client.ask("a", "what is stored?", max_tokens=12)
        expected = self.ask(daemon, "a", "what is stored?")
        self.assertEqual(answer.text, expected["answer"])
        self.assertEqual(answer.usage.cached_tokens, expected["usage"]["cached_tokens"])
        self.assertGreater(answer.usage.cached_tokens, 100)
        self.assertEqual(answer.usage.completion_tokens, 12)
        self.assertEqual(answer.finish_reason, "length")
        self.assertGreater(answer.timing.first_token_ms, 0)
        self.assertGreaterEqual(answer.timing.total_ms, answer.timing.first_token_ms)
        self.assertGreater(answer.read.host_bytes + answer.read.disk_bytes, 0)

    def test_citations_name_files_and_lines(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        lines = prose(1, 900).split()
        log = self.write("x.log", "".join(f"{a} {b}\n" for a, b in zip(lines, lines[1:])))
        run = daemon.ctl("ingest", "a", log, "--mode", "segmented", "-q")
        self.assertEqual(run.code, 0, run.err)
        answer = client.ask("a", "what is stored?", max_tokens=12, cite=True)
        expected = self.ask(daemon, "a", "what is stored?", "--cite")
        self.assertEqual(answer.text, expected["answer"])
        self.assertGreater(len(answer.citations), 0)
        self.assertEqual(
            [(c.source, c.path, c.first_line, c.last_line, c.weight) for c in answer.citations],
            [(c["source"], c["path"], c["first_line"], c["last_line"], c["weight"])
             for c in expected["citations"]])
        self.assertTrue(str(answer.citations[0]).startswith(log + ":"))
        self.assertEqual(answer.selection.candidate_blocks,
                         expected["selection"]["candidate_blocks"])

    def test_a_stream_is_the_answer_in_pieces(self):
        _, client = self.with_corpus()
        whole = client.ask("a", "what is stored?", max_tokens=24)
        stream = client.stream("a", "what is stored?", max_tokens=24)
        pieces = list(stream)
        self.assertGreater(len(pieces), 1)
        self.assertEqual("".join(pieces), whole.text)
        self.assertEqual(stream.answer.text, whole.text)
        self.assertEqual(stream.answer.usage, whole.usage)
        self.assertEqual(list(stream), [])

    def assert_idle(self, client):
        """No question runs any more: the leases of its blocks are gone."""
        self.wait_for("the question's end", lambda: client.df().leases == ())

    def test_leaving_a_stream_cancels_the_question(self):
        daemon, client = self.with_corpus()

        def by_close():
            stream = client.stream("a", "why?", max_tokens=4000)
            next(stream)
            stream.close()
            with self.assertRaises(corpusd.RequestCancelledError):
                stream.answer

        def by_with():
            with client.stream("a", "why?", max_tokens=4000) as stream:
                next(stream)

        def by_collection():
            for _ in client.stream("a", "why?", max_tokens=4000):
                break

        for leave in (by_close, by_with, by_collection):
            started = time.monotonic()
            leave()
            self.assert_idle(client)
            self.assertLess(time.monotonic() - started, 5 * PATIENCE, leave.__name__)
        cancelled = daemon.log_text().count("finish_reason=cancelled")
        self.assertEqual(cancelled, 3, daemon.log_text()[-2000:])
        self.assertEqual(client.ask("a", "why?", max_tokens=2).usage.completion_tokens, 2)

    def test_many_calls_are_in_flight_over_one_connection(self):
        _, client = self.with_corpus()
        expected = client.ask("a", "what is stored?", max_tokens=12).text
        slow = client.stream("a", "why?", max_tokens=2000)
        next(slow)
        answers, errors = [], []

        def ask():
            try:
                answers.append(client.ask("a", "what is stored?", max_tokens=12).text)
            except corpusd.CorpusdError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        # Quick calls pass the questions.
        self.assertEqual([c.name for c in client.corpora()], ["a"])
        for thread in threads:
            thread.join(120 * PATIENCE)
        self.assertEqual(errors, [])
        self.assertEqual(answers, [expected] * 16)
        next(slow)  # the first is still being answered
        slow.close()

    def test_two_streams_interleaved_keep_their_own_pieces(self):
        _, client = self.with_corpus()
        whole = [client.ask("a", q, max_tokens=30).text for q in ("what is stored?", "why?")]
        streams = [client.stream("a", q, max_tokens=30) for q in ("what is stored?", "why?")]
        texts = ["", ""]
        for _ in range(31):
            for i, stream in enumerate(streams):
                texts[i] += next(stream, "")
        self.assertEqual([texts[i] + "".join(streams[i]) for i in (0, 1)], whole)

    def test_paths_are_walked_and_what_is_no_text_is_left_out(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        folder = os.path.join(self.folder, "docs")
        latin = "so ein schönes Café in der Stadt\n"
        files = {"b.txt": prose(2, 60).encode(), "a.md": latin.encode("latin-1"),
                 "sub/c.py": b"print(1)\n", "bin": b"\0\1" * 50, "empty": b"",
                 "node_modules/x.js": b"x", ".git/config": b"x", "u16": "hallo".encode("utf-16")}
        for name, content in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        os.symlink("b.txt", os.path.join(folder, "link"))
        job = client.ingest("docs", folder, texts=[("note", "a note")], mode="segmented")
        corpus = client.wait(job)
        self.assertEqual(corpus.mode, "segmented")
        self.assertEqual([s.path for s in corpus.sources],
                         [os.path.join(folder, n) for n in ("a.md", "b.txt", "sub/c.py", "u16")] +
                         ["note"])
        sizes = {os.path.basename(s.path): s.bytes for s in corpus.sources}
        self.assertEqual(sizes["a.md"], len(latin.encode()))
        self.assertEqual(sizes["u16"], len("hallo"))
        self.assertEqual(corpus.skipped_files, 1)
        self.assertEqual(corpus.roots, (folder, "-"))
        with self.assertRaises(corpusd.UsageError):
            client.update("docs")  # the note is no file

    def test_update_reads_the_roots_again_and_computes_what_changed(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        folder = os.path.join(self.folder, "docs")
        os.mkdir(folder)
        for i in range(4):
            with open(os.path.join(folder, f"{i}.txt"), "w", encoding="utf-8") as file:
                file.write(prose(i, 200))
        first = client.wait(client.ingest("docs", folder, mode="segmented"))
        with open(os.path.join(folder, "2.txt"), "w", encoding="utf-8") as file:
            file.write(prose(77, 200))
        seen = []
        client.wait(client.update("docs"), progress=seen.append)
        self.assertEqual(seen[-1].state, "done")
        computed = seen[-1].total_tokens - seen[-1].reused_tokens
        self.assertGreater(computed, 100)
        self.assertLess(computed, first.tokens / 2)
        # corpusctl finds the same documents under the same names.
        again = daemon.ctl("update", "docs", "-o", "json")
        self.assertEqual(again.code, 0, again.err)
        self.assertEqual(again.json()["tokens"], client.get("docs").tokens)
        last = max(client.jobs(), key=lambda job: job.id)
        self.assertEqual(last.total_tokens, last.reused_tokens)

    def test_append_makes_an_exact_corpus_longer(self):
        _, client = self.with_corpus(200)
        before = client.get("a")
        job = client.append("a", texts={"b.txt": prose(2, 100)})
        after = client.wait(job)
        self.assertGreater(after.tokens, before.tokens + 100)
        self.assertEqual([s.path for s in after.sources], ["a.txt", "b.txt"])

    def test_progress_is_told_and_drawn(self):
        daemon = self.daemon(threads=1)
        client = self.connect(daemon)
        drawn, seen = io.StringIO(), []
        bar = corpusd.ProgressBar(drawn)
        job = client.ingest("a", texts={"a.txt": prose(1, 2500)})
        self.assertIn(job.state, ("queued", "running"))
        client.wait(job, progress=lambda job: (seen.append(job), bar(job)))
        done = [job.done_tokens for job in seen]
        self.assertEqual(done, sorted(done))
        self.assertEqual(seen[-1].done_tokens, seen[-1].total_tokens)
        self.assertGreater(seen[-1].written_bytes, 0)
        self.assertRegex(drawn.getvalue(), r"a: 100% [\d,]+/[\d,]+ tokens, .*done\n\Z")

    def test_a_job_is_cancelled_and_resumed(self):
        daemon = self.daemon(threads=1)
        client = self.connect(daemon)
        job = client.ingest("a", texts={"a.txt": prose(1, 2500)})
        client.cancel(job)
        with self.assertRaises(corpusd.RequestCancelledError) as raised:
            client.wait(job)
        self.assertEqual(raised.exception.job.id, job.id)
        with self.assertRaises(corpusd.RequestCancelledError):
            client.wait("a")
        self.assertEqual(client.wait(client.resume("a")).state, "ready")

    def test_pins_tiers_names_and_expiry(self):
        daemon, client = self.with_corpus()
        pinned = client.pin("a", tier="host", ttl=3600, reason="a test")
        self.assertEqual((pinned.pinned.tier, pinned.pinned.reason), ("host", "a test"))
        left = (pinned.pinned.expires_at - pinned.pinned.pinned_at).total_seconds()
        self.assertAlmostEqual(left, 3600, delta=2)
        with self.assertRaises(corpusd.CorpusdError):
            client.evict("a")
        self.assertIsNone(client.unpin("a").pinned)
        self.assertGreater(client.warm("a").blocks, 0)
        usage = {tier.name: tier for tier in client.df().tiers}
        told = daemon.ctl("df", "-o", "json").json()["tiers"]
        for tier in told:
            self.assertEqual(usage[tier["name"]].used_bytes, tier["used_bytes"])
        self.assertEqual(client.get("a").bytes.host, usage["host"].used_bytes)
        would = client.evict("a", tier="host", dry_run=True)
        gone = client.evict("a", tier="host")
        self.assertEqual((would.blocks, would.bytes), (gone.blocks, gone.bytes))
        self.assertEqual(client.get("a").bytes.host, 0)
        self.assertEqual(client.verify("a").damaged, 0)
        touched = client.touch("a", ttl=86400, priority="low")
        self.assertEqual(touched.priority, "low")
        self.assertIsNotNone(touched.expires_at)
        self.assertEqual(client.touch("a", priority="high").expires_at, touched.expires_at)
        self.assertIsNone(client.touch("a", never_expires=True).expires_at)
        client.rename("a", "b")
        self.assertEqual([c.name for c in client.corpora()], ["b"])
        client.delete("b")
        self.assertEqual(client.corpora(), [])
        self.assertTrue(all(c.level == "ok" for c in client.doctor()), client.doctor())

    def test_plan_says_what_corpusctl_says(self):
        daemon, client = self.with_corpus()
        path = self.write("p.txt", prose(3, 3000))
        for mode in ("auto", "exact", "segmented"):
            told = daemon.ctl("plan", path, "--mode", mode, "-o", "json").json()
            plan = client.plan(path, mode=mode)
            self.assertEqual(
                (plan.documents, plan.text_bytes, plan.tokens, plan.mode, plan.kv_format,
                 plan.cold_tokens, plan.break_even_questions, plan.measured_on),
                (told["documents"], told["text_bytes"], told["tokens"], told["mode"],
                 told["kv_format"], told["cold_tokens"], told["break_even_questions"],
                 told["prefill"]["measured_on"]))
            self.assertEqual([(f.name, f.bytes, f.fits) for f in plan.formats],
                             [(f["name"], f["bytes"], f["fits"]) for f in told["formats"]])
            self.assertAlmostEqual(plan.prefill_seconds, told["prefill"]["seconds"], places=6)

    def test_sampling_options_reach_the_daemon(self):
        _, client = self.with_corpus()
        whole = client.ask("a", "what is stored?", max_tokens=40)
        stop = whole.text[10:13]
        cut = client.ask("a", "what is stored?", max_tokens=40, stop=[stop])
        self.assertEqual(cut.text, whole.text[:whole.text.index(stop)])
        self.assertEqual(cut.finish_reason, "stop")
        with self.assertRaises(corpusd.UsageError):
            client.ask("a", "why?", stop="abc")
        with self.assertRaises(corpusd.UsageError):
            client.ask("a", "why?", presence_penalty=9)
        # The most likely token alone is what greedy takes, whatever the temperature.
        one = client.ask("a", "what is stored?", max_tokens=12, temperature=1.0, seed=3, top_k=1)
        self.assertEqual(one.text, client.ask("a", "what is stored?", max_tokens=12).text)

    def test_metrics_are_those_of_corpusctl(self):
        daemon, client = self.with_corpus()
        client.ask("a", "what is stored?", max_tokens=8)
        metrics = client.stats()
        told = {family["name"]: family for family in daemon.ctl("stats", "-o", "json").json()}
        self.assertEqual(set(metrics), set(told))
        tokens = metrics["corpusd_tokens_total"]
        self.assertEqual(tokens.value(result="completion"), 8)
        self.assertEqual(tokens.value(), sum(s["value"] for s in
                                             told["corpusd_tokens_total"]["samples"]))
        first = metrics["corpusd_first_token_seconds"].samples[0].histogram
        self.assertEqual(first.count, 1)
        self.assertEqual(first.buckets[-1], (float("inf"), 1))

    def test_version_and_ping(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        self.assertEqual(client.version().pid, daemon.process.pid)
        self.assertGreater(client.ping(), 0)


class PythonErrorsTest(IntegrationTest):
    connect = PythonClientTest.connect

    def test_each_error_has_the_class_and_code_of_corpusctl(self):
        daemon = self.daemon(disk_bytes="1MiB")
        client = self.connect(daemon)
        client.wait(client.ingest("a", texts={"a": prose(1, 100)}))
        cases = [
            (lambda: client.get("nobody"), corpusd.NotFoundError, 3),
            (lambda: client.ask("nobody", "why?"), corpusd.NotFoundError, 3),
            (lambda: client.ingest("a", "/no/such/path"), corpusd.NotFoundError, 3),
            (lambda: client.ask("a", ""), corpusd.UsageError, 2),
            (lambda: client.ask("a", "why?", temperature=-1), corpusd.UsageError, 2),
            (lambda: client.ask("a", "\ud800"), corpusd.UsageError, 2),
            (lambda: client.ingest("a", texts={"x": "again"}), corpusd.AlreadyExistsError, 1),
            (lambda: client.ingest("b", texts={"x": ""}), corpusd.NothingToDoError, 9),
            (lambda: client.ingest("../b", texts={"x": "y"}), corpusd.UsageError, 2),
            (lambda: client.wait(client.ingest("b", texts={"x": prose(2, 1300)}, ttl=60)),
             corpusd.SpaceError, 8),
            (lambda: client.evict(), corpusd.UsageError, 2),
            (lambda: client.job(99), corpusd.NotFoundError, 3),
        ]
        for call, kind, exit_code in cases:
            with self.assertRaises(kind) as raised:
                call()
            self.assertIs(type(raised.exception), kind)
            self.assertEqual(raised.exception.exit_code, exit_code)
            self.assertIsInstance(raised.exception, corpusd.CorpusdError)
        self.assertEqual([c.name for c in client.corpora()][0], "a")

    def test_the_table_of_codes_is_that_of_corpusctl(self):
        with open(os.path.join(ROOT, "client", "ctl", "exit_code.cc"), encoding="utf-8") as file:
            rules = re.findall(r'ExitCodeRule\{"(\w+)", (kExit\w+)\}', file.read())
        with open(os.path.join(ROOT, "client", "ctl", "exit_code.h"), encoding="utf-8") as file:
            numbers = dict(re.findall(r"(kExit\w+) = (\d+)", file.read()))
        self.assertGreater(len(rules), 20)
        own = {"ok", "interrupted"}  # of corpusctl alone
        for code, name in rules:
            if code not in own:
                self.assertEqual(corpusd.errors.error_of(code, "").exit_code,
                                 int(numbers[name]), code)

    def test_a_timeout_ends_the_call_and_the_question(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        client.wait(client.ingest("a", texts={"a": prose(1, 200)}))
        started = time.monotonic()
        with self.assertRaises(corpusd.DeadlineError) as raised:
            client.ask("a", "why?", max_tokens=7000, timeout=0.3)
        self.assertIsInstance(raised.exception, TimeoutError)
        self.assertEqual(raised.exception.exit_code, 124)
        self.assertLess(time.monotonic() - started, 10 * PATIENCE)
        self.wait_for("the question's end", lambda: client.df().leases == ())

    @staticmethod
    def is_stopped(pid):
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    def test_a_daemon_that_does_not_answer_is_given_up(self):
        daemon = self.daemon()
        client = self.connect(daemon, timeout=0.2)
        daemon.process.send_signal(signal.SIGSTOP)
        self.wait_for("its stop", lambda: self.is_stopped(daemon.process.pid))
        try:
            with self.assertRaises(corpusd.DeadlineError):
                client.version()
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        self.assertEqual(client.version().pid, daemon.process.pid)  # the connection lives

    def test_no_daemon_and_a_daemon_that_dies(self):
        with self.assertRaises(corpusd.UnreachableError) as raised:
            corpusd.connect(os.path.join(self.folder, "nobody"))
        self.assertIn("is it running?", str(raised.exception))
        daemon = self.daemon()
        client = self.connect(daemon)
        client.wait(client.ingest("a", texts={"a": prose(1, 200)}))
        stream = client.stream("a", "why?", max_tokens=4000)
        next(stream)
        daemon.kill()
        with self.assertRaises(corpusd.UnreachableError):
            list(stream)
        with self.assertRaises(corpusd.UnreachableError):
            client.version()
        daemon.start()
        self.assertEqual([c.name for c in self.connect(daemon).corpora()], ["a"])

    def test_a_refused_ingest_says_why_before_all_is_sent(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        sent = []

        def texts():
            for i in range(400):
                sent.append(i)
                yield f"{i}.txt", prose(i, 50)

        with self.assertRaises(corpusd.UsageError):
            client.ingest("a", texts=texts(), mode="nonsense")
        with self.assertRaises(corpusd.NotFoundError):
            client.get("a")
        self.assertEqual(client.version().pid, daemon.process.pid)

    def test_a_frame_over_the_limit_is_refused_on_this_side(self):
        daemon = self.daemon()
        client = self.connect(daemon)
        with self.assertRaises(corpusd.UsageError):
            client.ask("a", "x" * (protocol.FRAME_BYTES_MAX + 1))
        self.assertEqual(client.corpora(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
