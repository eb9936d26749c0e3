"""Prefill once, ask, restart, ask again: one answer, nothing computed twice, even after a kill."""
import os
import random
import time
import unittest

from harness import IntegrationTest, PATIENCE, prose


class RestartTest(IntegrationTest):
    def test_the_follow_up_after_a_restart_recomputes_nothing(self):
        for kv_format in ("bf16", "int8"):
            with self.subTest(kv_format):
                daemon = self.daemon(kv_format=kv_format)
                self.ingest(daemon, "a", prose(1, 400))
                cold = self.ask(daemon, "a", "why?", "--no-cache")
                warm = self.ask(daemon, "a", "why?")
                self.assertEqual(daemon.stop(), 0)
                daemon.start()
                again = self.ask(daemon, "a", "why?")
                tokens = self.show(daemon, "a")["tokens"]
                self.assertEqual(cold["usage"]["recomputed_tokens"], tokens)
                for report in (warm, again):
                    self.assertEqual(report["usage"]["recomputed_tokens"], 0)
                    self.assertEqual(report["usage"]["cached_tokens"], tokens)
                    self.assertEqual(report["answer"], cold["answer"])
                self.assertGreater(warm["read"]["host_bytes"], 0)
                self.assertEqual(again["read"]["host_bytes"], 0)
                self.assertEqual(again["read"]["disk_bytes"], warm["read"]["host_bytes"])

    def test_an_appended_corpus_equals_one_ingest(self):
        daemon = self.daemon()
        first, second = prose(1, 380) + "\n", prose(2, 90) + "\n"
        self.ingest(daemon, "grown", first)
        run = daemon.ctl("append", "grown", self.write("more.txt", second), "-q")
        self.assertEqual(run.code, 0, run.err)
        paths = [self.write("1.txt", first), self.write("2.txt", second)]
        self.assertEqual(daemon.ctl("ingest", "whole", *paths, "-q").code, 0)
        self.assertEqual(self.show(daemon, "grown")["tokens"], self.show(daemon, "whole")["tokens"])
        self.assertEqual(self.ask(daemon, "grown")["answer"], self.ask(daemon, "whole")["answer"])

    def test_an_equal_prefix_is_not_computed_again(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 400))
        before = daemon.ctl("df", "-o", "json").json()["tiers"]
        self.ingest(daemon, "b", prose(1, 400))
        after = daemon.ctl("df", "-o", "json").json()["tiers"]
        disk = [next(t for t in tiers if t["name"] == "disk")["used_bytes"]
                for tiers in (before, after)]
        self.assertLess(disk[1] - disk[0], self.show(daemon, "b")["bytes"]["stored"] / 2)
        self.assertEqual(daemon.ctl("rm", "a", "--yes").code, 0)
        self.assertEqual(self.ask(daemon, "b")["usage"]["recomputed_tokens"], 0)

    def test_kill_at_twenty_random_moments_loses_nothing(self):
        seed = int(os.environ.get("CORPUSD_SEED", random.randrange(1 << 30)))
        print(f"CORPUSD_SEED={seed}")
        chance = random.Random(seed)
        daemon = self.daemon()
        text = prose(seed, 420)
        self.ingest(daemon, "reference", text)
        expected = self.ask(daemon, "reference")["answer"]
        self.assertEqual(daemon.ctl("rm", "reference", "--yes").code, 0)
        path = self.write("kill.txt", text)
        for round_ in range(20):
            name = f"k{round_}"
            clients = [daemon.popen("ingest", name, path, "-q")]
            if round_ % 2:
                self.wait_for("the corpus", lambda n=name: daemon.ctl("show", n).code == 0)
                clients.append(daemon.popen("ask", name, "what?", "--max-tokens", "50"))
            time.sleep(chance.random() * 0.6 * PATIENCE)
            daemon.kill()
            for client in clients:
                client.communicate()
            daemon.start()
            if daemon.ctl("show", name).code != 0:  # died before the corpus was registered
                self.ingest(daemon, name, text)
            run = daemon.ctl("wait", name, "--for", "ready", "--timeout", "60s")
            self.assertEqual(run.code, 0, f"round {round_}: {run.err}")
            verified = daemon.ctl("verify", name, "-o", "json")
            self.assertEqual(verified.code, 0, verified.err)
            self.assertEqual(self.ask(daemon, name)["answer"], expected, f"round {round_}")
            # Removed, or the next round would only share its blocks.
            self.assertEqual(daemon.ctl("rm", name, "--yes").code, 0)

    def test_resume_recomputes_at_most_one_run(self):
        daemon = self.daemon(threads=1)
        path = self.write("long.txt", prose(5, 1300))
        daemon.ctl("ingest", "a", path, "--detach")
        self.wait_for("the first durable run",
                      lambda: daemon.ctl("job", "1", "-o", "json").json()["done_tokens"] >= 512)
        durable = daemon.ctl("job", "1", "-o", "json").json()["done_tokens"]
        daemon.kill()
        daemon.start()
        # What was durable is where the job goes on: at most the run in flight and the one on
        # its way to the disk are computed again.
        self.assertGreaterEqual(daemon.ctl("job", "1", "-o", "json").json()["done_tokens"], durable)
        self.assertEqual(daemon.ctl("wait", "a", "--timeout", "60s").code, 0)
        job = daemon.ctl("job", "1", "-o", "json").json()
        self.assertEqual(job["state"], "done")
        self.assertGreaterEqual(job["resumed_times"], 1)

    def test_a_prefill_goes_on_by_itself_after_a_kill_unless_it_was_cancelled(self):
        daemon = self.daemon()
        for name, seed in (("cancelled", 8), ("goes-on", 9)):
            daemon.ctl("ingest", name, self.write(name, prose(seed, 1300)), "--detach")
        self.wait_for("the first durable run",
                      lambda: daemon.ctl("job", "1", "-o", "json").json()["done_tokens"] > 0)
        self.assertEqual(daemon.ctl("cancel", "1").code, 0)
        daemon.kill()
        daemon.start()
        # Nobody asks for anything but how it stands.
        self.wait_for("the prefill's end",
                      lambda: self.show(daemon, "goes-on")["state"] == "ready", 60)
        self.assertEqual(self.show(daemon, "cancelled")["state"], "cancelled")

    def test_sigterm_finishes_a_question_and_checkpoints_a_prefill(self):
        daemon = self.daemon(grace="30s")
        self.ingest(daemon, "a", prose(1, 200))
        question = daemon.popen("ask", "a", "why?", "--max-tokens", "60", "-o", "json")
        time.sleep(0.2 * PATIENCE)
        daemon.ctl("ingest", "b", self.write("b.txt", prose(2, 450)), "--detach")
        self.assertEqual(daemon.stop(), 0)
        out, err = question.communicate()
        self.assertEqual(question.returncode, 0, err)
        self.assertIn(b'"answer"', out)
        daemon.start()
        self.assertEqual(daemon.ctl("wait", "b", "--timeout", "60s").code, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
