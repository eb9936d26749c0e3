"""Metrics of a real daemon: the numbers of what was done to it, in stats and in top, and the names
that dashboard and alert rules use."""
import json
import os
import re
import subprocess
import time
import unittest

from harness import IntegrationTest, PATIENCE, ROOT, program, prose

DASHBOARD = os.path.join(ROOT, "deploy", "grafana", "corpusd.json")
RULES = os.path.join(ROOT, "deploy", "prometheus", "corpusd.rules.yml")


class Metrics:
    """One reading."""

    def __init__(self, families):
        self.families = {family["name"]: family for family in families}

    def value(self, name, **labels):
        """Of the samples that have these labels, their sum."""
        samples = self.families["corpusd_" + name]["samples"]
        return sum(s["value"] for s in samples if labels.items() <= s["labels"].items())

    def histogram(self, name):
        return self.families["corpusd_" + name]["samples"][0]


class MetricsTest(IntegrationTest):
    def stats(self, daemon):
        run = daemon.ctl("stats", "-o", "json")
        self.assertEqual(run.code, 0, run.err)
        return Metrics(run.json())

    def test_prefill_and_questions_are_counted_token_by_token(self):
        daemon = self.daemon()
        before = self.stats(daemon)
        self.assertEqual(before.value("prefill_tokens_total"), 0)
        self.assertEqual(before.value("tokens_total"), 0)
        self.ingest(daemon, "a", prose(1, 400))
        made = self.show(daemon, "a")
        after = self.stats(daemon)
        self.assertEqual(after.value("prefill_tokens_total", result="computed"), made["tokens"])
        self.assertEqual(after.value("published_blocks_total"), made["blocks"])
        self.assertEqual(after.value("published_bytes_total"), made["bytes"]["stored"])
        self.assertEqual(after.value("jobs_ended_total", kind="prefill", state="done"), 1)
        # The same text again is found, not computed.
        self.ingest(daemon, "b", prose(1, 400))
        again = self.stats(daemon)
        self.assertEqual(again.value("prefill_tokens_total", result="computed"), made["tokens"])
        self.assertGreaterEqual(again.value("prefill_tokens_total", result="reused"),
                                made["tokens"] - 128)

        answers = [self.ask(daemon, "a") for _ in range(3)]
        asked = self.stats(daemon)
        for result in ("cached", "recomputed", "completion"):
            self.assertEqual(asked.value("tokens_total", result=result),
                             sum(a["usage"][result + "_tokens"] for a in answers), result)
        self.assertGreater(asked.value("tokens_total", result="cached", tier="host"), 0)
        for tier in ("host", "disk"):
            self.assertEqual(asked.value("read_bytes_total", tier=tier),
                             sum(a["read"][tier + "_bytes"] for a in answers), tier)
        self.assertEqual(asked.value("questions_total"), 3)
        first = asked.histogram("first_token_seconds")
        self.assertEqual(first["count"], 3)
        self.assertAlmostEqual(
            first["sum"], sum(a["timing"]["first_token_ms"] for a in answers) / 1e3, places=6)
        decode = asked.histogram("decode_token_seconds")
        self.assertEqual(decode["count"],
                         sum(a["usage"]["completion_tokens"] - 1 for a in answers))
        self.assertAlmostEqual(
            decode["sum"], sum((a["usage"]["completion_tokens"] - 1) /
                               a["timing"]["decode_tokens_per_s"] for a in answers), places=6)
        self.assertEqual(asked.value("requests_total", method="ask", code="ok"), 3)

    def test_tiers_evictions_errors_and_damage(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 400))
        self.assertEqual(daemon.ctl("pin", "a", "--tier", "host").code, 0)
        told = {tier["name"]: tier for tier in daemon.ctl("df", "-o", "json").json()["tiers"]}
        stats = self.stats(daemon)
        for tier, expected in told.items():
            for what in ("capacity", "used", "pinned"):  # a disk's free room is others' too
                self.assertEqual(stats.value(f"tier_{what}_bytes", tier=tier),
                                 expected[what + "_bytes"], (tier, what))
        self.assertGreater(stats.value("tier_pinned_bytes", tier="host"), 0)
        self.assertEqual(stats.value("pins"), 1)
        daemon.ctl("unpin", "a")
        gone = daemon.ctl("evict", "a", "--from", "host", "-o", "json").json()
        self.assertEqual(self.stats(daemon).value("evicted_bytes_total", tier="host",
                                                  reason="asked"), gone["bytes"])
        gone = daemon.ctl("evict", "a", "--from", "disk", "-o", "json").json()
        stats = self.stats(daemon)
        self.assertEqual(stats.value("evicted_blocks_total", tier="disk", reason="asked"),
                         gone["blocks"])
        self.assertEqual(stats.value("corpora", state="evicted"), 1)
        self.assertEqual(stats.value("errors_total"), 0)
        self.assertEqual(daemon.ctl("show", "nobody").code, 3)
        self.assertEqual(self.stats(daemon).value("errors_total", code="not_found"), 1)

        self.ingest(daemon, "b", prose(2, 400))
        self.assertEqual(daemon.stop(), 0)
        subprocess.run([program("corrupt_block"), daemon.data, "b", "2", "1000"], check=True)
        daemon.start()
        self.assertEqual(self.stats(daemon).value("crc_failures_total"), 0)
        self.assertGreater(self.ask(daemon, "b")["usage"]["recomputed_tokens"], 0)
        self.assertEqual(self.stats(daemon).value("crc_failures_total", tier="disk"), 1)

    def test_top_shows_corpora_jobs_and_rates(self):
        daemon = self.daemon(threads=1)
        self.ingest(daemon, "a", prose(1, 300))
        daemon.ctl("ingest", "long", self.write("l.txt", prose(2, 150000)), "--mode", "segmented",
                   "--detach")
        asking = daemon.popen("ask", "a", "why?", "--max-tokens", "200")
        run = daemon.ctl("top", "--once", "-o", "json", "--interval", "500ms")
        self.assertEqual(run.code, 0, run.err)
        top = run.json()
        self.assertEqual({corpus["name"] for corpus in top["corpora"]}, {"a", "long"})
        self.assertEqual([job["corpus"] for job in top["jobs"]], ["long"])
        self.assertGreaterEqual(top["seconds"], 0.5)
        asking.communicate(timeout=120 * PATIENCE)
        table = daemon.ctl("top", "--once", "--interval", "100ms")
        self.assertEqual(table.code, 0, table.err)
        self.assertIn("CORPUS", table.out)
        self.assertNotIn("\x1b", table.out)
        self.assertLessEqual(max(map(len, table.out.splitlines())), 80)
        # Without a terminal and without --once it goes on, a reading a time.
        stream = daemon.popen("top", "-o", "jsonl", "--interval", "100ms")
        for _ in range(3):
            self.assertIn("rates", json.loads(stream.stdout.readline()))
        stream.send_signal(2)
        stream.communicate(timeout=20 * PATIENCE)
        self.assertEqual(stream.returncode, 0)

    def test_top_on_a_terminal_resizes_and_ends_with_q(self):
        import fcntl
        import pty
        import struct
        import termios
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        top = subprocess.Popen([program("corpusctl"), "--socket", daemon.socket, "top",
                                "--interval", "200ms"], stdin=follower, stdout=follower,
                               stderr=subprocess.PIPE,
                               env={**os.environ, "TERM": "xterm"}, start_new_session=True)
        os.close(follower)
        self.addCleanup(top.stderr.close)
        self.addCleanup(top.kill)
        screen = b""

        def read_until(what):
            nonlocal screen
            deadline = time.monotonic() + 20 * PATIENCE
            while what not in screen:
                self.assertLess(time.monotonic(), deadline, screen[-2000:])
                screen += os.read(leader, 65536)

        read_until(b"CORPUS")
        self.assertTrue(screen.startswith(b"\x1b[?1049h\x1b[?25l"))
        screen = b""
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 40, 0, 0))
        read_until(b"\x1b[J")  # a frame that may have been under way
        screen = b""
        read_until(b"\x1b[J")
        frame = screen.split(b"\x1b[H")[-1].split(b"\x1b[J")[0]
        lines = [re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line)
                 for line in re.split(rb"\r*\n", frame)]
        self.assertLessEqual(len(lines), 6)
        self.assertLessEqual(max(len(line.decode()) for line in lines), 40, lines)
        os.write(leader, b"q")
        screen = b""
        read_until(b"\x1b[?25h\x1b[?1049l")
        self.assertEqual(top.wait(timeout=20 * PATIENCE), 0)
        os.close(leader)

    def test_dashboard_and_rules_use_only_metrics_that_exist(self):
        daemon = self.daemon()
        known = set(daemon.ctl("stats", "-o", "name").out.split())
        self.assertGreater(len(known), 30)
        for name in known:
            self.assertRegex(name, r"\Acorpusd_[a-z][a-z0-9_]*\Z")
        families = self.stats(daemon).families
        with open(DASHBOARD, encoding="utf-8") as file:
            dashboard = json.load(file)
        with open(RULES, encoding="utf-8") as file:
            rules = file.read()
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", ())]
        expressions += [variable["query"] for variable in dashboard["templating"]["list"]
                        if variable["type"] == "query"]
        folded = re.sub(r">-\n\s+|(?<=\S)\n {10,}(?=\S)", " ", rules)  # one line each
        expressions += re.findall(r"^\s*expr: +(.*)$", folded, re.MULTILINE)
        self.assertGreater(len(expressions), 20)
        used = set()
        for expression in expressions:
            for name in re.findall(r"\bcorpusd_\w+", expression):
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                histogram = base in known and families[base]["type"] == "histogram"
                self.assertIn(base if histogram else name, known, expression)
                used.add(base if histogram else name)
                # The labels that it selects exist, too, where the family has samples.
                family = families[base if histogram else name]
                labels = {label for sample in family["samples"] for label in sample["labels"]}
                for selector in re.findall(name + r"\{([^}]*)\}", expression):
                    for label in re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", selector):
                        if family["samples"]:
                            self.assertIn(label, labels | {"instance", "job"}, expression)
        self.assertGreater(len(used), 15)


if __name__ == "__main__":
    unittest.main(verbosity=2)
