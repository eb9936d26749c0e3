"""Several ranks: threads of the daemon, and processes over TCP; the answers of one, and what is
lost with a rank that is killed."""
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import rank_schedule
from harness import Daemon, IntegrationTest, PATIENCE, program, prose

# More tokens than lie with one rank (8192).
WORDS = 1900


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def own_memory(pid):
    """Bytes of a process that no file holds."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


class RanksTest(IntegrationTest):
    def setUp(self):
        super().setUp()
        self.make_model(self.model, context=32768)
        self.workers = {}

    def tearDown(self):
        self.stop_workers()
        super().tearDown()

    def stop_workers(self):
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.workers.clear()

    def rank_file(self, ranks):
        lines = [f"127.0.0.1:{port}" for port in free_ports(ranks)]
        return self.write("ranks", "# a rank a line\n" + "\n".join(lines) + "\n")

    def start_worker(self, rank_file, rank, *options):
        folder = tempfile.mkdtemp(dir=self.folder)
        with open(os.path.join(folder, "log"), "ab") as log:
            self.workers[rank] = subprocess.Popen(
                [program("corpusd"), f"--rank-file={rank_file}", f"--rank={rank}",
                 f"--model={self.model}", "--threads=1", f"--data-dir={folder}/data", *options],
                stdout=log, stderr=log)

    def followers(self, daemon):
        run = daemon.ctl("doctor", "-o", "json")
        checks = [c for c in run.json()["checks"] if c["name"] == "ranks"]
        return sum("follows" in c["text"] for c in checks)

    def await_followers(self, daemon, count):
        self.wait_for(f"{count} followers", lambda: self.followers(daemon) == count, 60)
        self.assertEqual(self.followers(daemon), count)

    def group(self, ranks):
        """A daemon with so many ranks that are processes."""
        rank_file = self.rank_file(ranks)
        for rank in range(1, ranks):
            self.start_worker(rank_file, rank)
        daemon = self.daemon(rank_file=rank_file)
        self.await_followers(daemon, ranks - 1)
        return daemon, rank_file

    @staticmethod
    def used_by_others(daemon):
        tiers = daemon.ctl("df", "-o", "json").json()["tiers"]
        return sum(t["used_bytes"] for t in tiers if t["name"] in ("host@1", "host@2"))

    def alone(self, daemon, option):
        """Restarts the daemon without its ranks. RETURNS what it then answers."""
        self.assertEqual(daemon.stop(), 0)
        del daemon.options[option]
        daemon.start()
        return self.ask(daemon, "text")

    def test_threads_and_processes_answer_as_one(self):
        alone = self.daemon()
        self.ingest(alone, "text", prose(1, WORDS))
        expected = self.ask(alone, "text")
        self.assertGreater(self.show(alone, "text")["tokens"], 9216)
        threads = self.daemon(ranks=3)
        self.await_followers(threads, 2)
        processes, _ = self.group(3)
        for daemon in (threads, processes):
            self.ingest(daemon, "text", prose(1, WORDS))
            for _ in range(2):
                report = self.ask(daemon, "text")
                self.assertEqual(report["answer"], expected["answer"])
                self.assertEqual(report["usage"]["recomputed_tokens"], 0)
            self.assertEqual(daemon.ctl("verify", "text").code, 0)
        # The others say with their next beat what they hold.
        self.wait_for("blocks with the others", lambda: self.used_by_others(processes) > 0)
        # One daemon alone goes on with what three threads made: they had one store.
        report = self.alone(threads, "ranks")
        self.assertEqual(report["answer"], expected["answer"])
        self.assertEqual(report["usage"]["recomputed_tokens"], 0)
        # What lies with processes that no file names any more is computed again, once.
        report = self.alone(processes, "rank_file")
        self.assertEqual(report["answer"], expected["answer"])
        self.assertGreater(report["usage"]["recomputed_tokens"], 0)
        again = self.ask(processes, "text")
        self.assertEqual(again["answer"], expected["answer"])
        self.assertEqual(again["usage"]["recomputed_tokens"], 0)

    def test_a_killed_rank_ends_what_it_was_part_of_and_nothing_else(self):
        alone = self.daemon()
        self.ingest(alone, "text", prose(1, WORDS))
        expected = self.ask(alone, "text")["answer"]
        daemon, rank_file = self.group(3)
        path = self.write("text.txt", prose(1, WORDS))
        client = daemon.popen("ingest", "text", path, "-q")
        self.wait_for("a first block", lambda: daemon.ctl("show", "text").code == 0 and
                      self.show(daemon, "text")["blocks"] > 0)
        self.workers[1].send_signal(signal.SIGKILL)
        _, error = client.communicate(timeout=120 * PATIENCE)
        durable = self.show(daemon, "text")["blocks"]
        if client.returncode != 0:  # else it was quicker than the kill
            self.assertIn("rank 1 of 3", error.decode())
            self.assertGreater(durable, 0)
        # The others go on from what is durable.
        self.wait_for("the corpus", lambda: self.show(daemon, "text")["state"] == "ready", 120)
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)
        self.assertEqual(daemon.ctl("verify", "text").code, 0)
        # It comes back, and a question that it is part of ends with it.
        self.start_worker(rank_file, 1)
        self.await_followers(daemon, 2)
        asking = daemon.popen("ask", "text", "why?", "--max-tokens", "3000")
        self.assertTrue(asking.stdout.read(1))
        self.workers[1].send_signal(signal.SIGKILL)
        _, error = asking.communicate(timeout=120 * PATIENCE)
        self.assertEqual(asking.returncode, 5, error)
        self.assertIn("rank 1 of 3", error.decode())
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)

    def test_blocks_of_a_rank_lie_on_its_own_disk(self):
        alone = self.daemon()
        self.ingest(alone, "text", prose(3, WORDS))
        expected = self.ask(alone, "text")["answer"]
        daemon, rank_file = self.group(2)
        self.wait_for("the disk", lambda: "disk@1" in daemon.ctl("df").out)
        self.ingest(daemon, "text", prose(3, WORDS))
        stored = self.show(daemon, "text")["bytes"]["stored"]

        def tiers():
            return daemon.ctl("df", "-o", "json").json()["tiers"]

        def used():
            return next(t["used_bytes"] for t in tiers() if t["name"] == "disk@1")

        def shelved():
            return used() > stored / 8

        self.wait_for("what is told with the next beat", shelved)
        self.assertTrue(shelved())
        bytes_of = self.show(daemon, "text")["bytes"]
        self.assertEqual(len(bytes_of["disk_of_ranks"]), 2)
        self.assertEqual(sum(bytes_of["disk_of_ranks"]), bytes_of["disk"])
        self.assertGreater(min(bytes_of["disk_of_ranks"]), stored / 8)
        self.assertIn(" on ranks 0 to 1", daemon.ctl("show", "text").out)
        # Documents are dealt, too, and what leaves the store leaves every disk.
        before = used()
        docs = [self.write(f"d{i}.txt", prose(i, 500)) for i in range(4)]
        run = daemon.ctl("ingest", "docs", *docs, "--mode", "segmented", "--pin", "-q")
        self.assertEqual(run.code, 0, run.err)
        self.wait_for("documents", lambda: used() > before)
        pinned = [t["pinned_bytes"] for t in tiers() if t["name"] == "disk@1"]
        self.assertGreater(pinned[0], 0)
        self.assertEqual(daemon.ctl("verify", "docs").code, 0)
        bundle = os.path.join(self.folder, "docs.bundle")
        self.assertEqual(daemon.ctl("export", "docs", bundle).code, 0)
        self.assertEqual(daemon.ctl("unpin", "docs").code, 0)
        self.assertEqual(daemon.ctl("evict", "docs", "--from", "disk").code, 0)
        self.wait_for("their going", lambda: used() == before)
        self.assertEqual(daemon.ctl("rm", "docs", "--yes").code, 0)
        # Both begin anew: rank 1 reads its own blocks from its own disk.
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.await_followers(daemon, 1)
        self.wait_for("the disk", lambda: "disk@1" in daemon.ctl("df").out)
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)
        self.assertEqual(daemon.ctl("verify", "text").code, 0)
        # Away: unavailable, not damaged; asked for, it is computed again.
        self.workers[1].kill()
        self.workers[1].wait()
        self.wait_for("the loss", lambda: self.followers(daemon) == 0)
        self.assertEqual(daemon.ctl("evict", "text", "--from", "host").code, 0)
        run = daemon.ctl("ask", "text", "why?", "--max-tokens", "12")
        self.assertEqual(run.code, 5, run.err)
        self.assertIn("rank 1", run.err)
        run = daemon.ctl("verify", "text", "-o", "json")
        self.assertIn("missing", run.out)
        self.assertEqual(daemon.ctl("verify", "text", "--repair", timeout=240).code, 0)
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)
        self.assertEqual(daemon.ctl("verify", "text").code, 0)

    def test_what_a_rank_holds_stays_flat(self):
        # Twice the text over twice the ranks, a span of 8192 tokens, or nearly, for each; what is
        # beyond a whole round of spans would be the last rank's.
        self.make_model(self.model, context=40960)
        held = {}
        for ranks, words in ((2, 3100), (4, 6200)):
            daemon, _ = self.group(ranks)
            self.wait_for("the disks", lambda: daemon.ctl("df").out.count("disk@") == ranks - 1)
            self.ingest(daemon, "text", prose(7, words))
            stored = self.show(daemon, "text")["bytes"]["stored"]

            def used(daemon=daemon):
                tiers = daemon.ctl("df", "-o", "json").json()["tiers"]
                return [t["used_bytes"] for t in tiers if t["name"].startswith("disk")]

            others = stored * (ranks - 1) / ranks

            def settled(used=used, others=others):
                before = used()
                time.sleep(2)  # two beats
                return used() == before and sum(before[1:]) > 0.95 * others

            self.wait_for("what is told with the next beats", settled)
            # Rank 0 has the catalogue as well.
            self.assertLessEqual(self.show(daemon, "text")["tokens"], ranks * 8192)
            held[ranks] = stored, max(used()[1:])
            self.assertEqual(daemon.stop(), 0)
            self.stop_workers()
        self.assertAlmostEqual(held[4][0] / held[2][0], 2, delta=0.1)
        self.assertAlmostEqual(held[4][1] / held[2][1], 1, delta=0.1)

    def test_evict_reaches_the_memory_of_other_ranks(self):
        daemon, _ = self.group(3)
        self.ingest(daemon, "text", prose(3, WORDS))
        answer = self.ask(daemon, "text")["answer"]
        self.wait_for("blocks with the others", lambda: self.used_by_others(daemon) > 0)
        for what in (["--all"], ["--to-free", "1"]):
            self.assertEqual(self.ask(daemon, "text")["answer"], answer)
            self.wait_for("blocks with the others", lambda: self.used_by_others(daemon) > 0)
            held = self.used_by_others(daemon)
            plan = daemon.ctl("evict", *what, "--from", "host", "--dry-run", "-o", "json")
            self.assertEqual(plan.code, 0, plan.err)
            self.assertEqual(self.used_by_others(daemon), held)
            done = daemon.ctl("evict", *what, "--from", "host", "-o", "json")
            self.assertEqual(done.code, 0, done.err)
            self.assertEqual(done.json()["bytes"], plan.json()["bytes"])
            self.assertGreaterEqual(done.json()["bytes"], held)
            # They say with their next beat what they hold.
            self.wait_for("empty memory", lambda: self.used_by_others(daemon) == 0)
        report = self.ask(daemon, "text")
        self.assertEqual(report["answer"], answer)
        self.assertEqual(report["usage"]["recomputed_tokens"], 0)

    def test_documents_are_dealt(self):
        paths = [self.write(f"d{i}.txt", prose(i, 60 + 90 * i)) for i in range(6)]
        answers = []
        for options in ({}, {"ranks": 2}):
            daemon = self.daemon(**options)
            if options:
                self.await_followers(daemon, 1)
            run = daemon.ctl("ingest", "docs", *paths, "--mode", "segmented", "-q")
            self.assertEqual(run.code, 0, run.err)
            answers.append(self.ask(daemon, "docs")["answer"])
            self.assertEqual(daemon.ctl("verify", "docs").code, 0)
        self.assertEqual(answers[0], answers[1])

    def test_a_grid_shares_weights_and_text(self):
        # Weights of some 40 MB, beside which nothing else of a process counts for much.
        self.make_model(self.model, context=32768, hidden=1024, **{"feed-forward": 4096})
        alone = self.daemon()
        self.ingest(alone, "text", prose(5, WORDS))
        expected = self.ask(alone, "text")["answer"]
        whole = own_memory(alone.process.pid)
        self.assertEqual(alone.stop(), 0)
        threads = self.daemon(tensor_parallel=3)
        checks = threads.ctl("doctor", "-o", "json").json()["checks"]
        self.assertEqual(sum("computes products" in c["text"] for c in checks), 2)
        self.ingest(threads, "short", prose(5, 40))
        self.assertEqual(threads.ctl("verify", "short").code, 0)
        self.assertEqual(threads.stop(), 0)
        # Ranks 0 and 2 have the text, 1 and 3 the other half of their weights.
        rank_file = self.rank_file(4)
        for rank in (1, 3, 2):
            self.start_worker(rank_file, rank, "--tensor-parallel=2")
        daemon = self.daemon(rank_file=rank_file, tensor_parallel=2)
        self.await_followers(daemon, 1)
        self.wait_for("the disk", lambda: "disk@2" in daemon.ctl("df").out)
        for rank in (1, 3):
            self.assertLess(own_memory(self.workers[rank].pid), 0.75 * whole)
        self.ingest(daemon, "text", prose(5, WORDS))
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)
        self.assertEqual(daemon.ctl("verify", "text").code, 0)
        # A rank that has weights alone is as much part of it as any other.
        self.workers[1].kill()
        self.workers[1].wait()
        run = daemon.ctl("ask", "text", "why?", "--max-tokens", "12")
        self.assertEqual(run.code, 5, run.err)
        self.assertIn("rank 1 (127.0.0.1:", run.err)
        self.assertIn("has a part of the weights", run.err)
        self.start_worker(rank_file, 1, "--tensor-parallel=2")
        self.wait_for("its return", lambda: daemon.ctl(
            "ask", "text", "why?", "--max-tokens", "12").code == 0, 60)
        self.assertEqual(self.ask(daemon, "text")["answer"], expected)

    def test_a_plan_for_gpus_is_what_a_simulation_of_the_schedule_gives(self):
        model = rank_schedule.Model(layers=2, hidden=64, feed_forward=128, q_heads=4, kv_heads=2,
                                    head_dim=16)
        daemon = self.daemon()
        path = self.write("text.txt", prose(1, 300))
        tokens = 10_000_000
        for link in ((), ("--link", "50GB/s")):
            arguments = ("plan", path, "--ranks", "1,8,64", "--tokens", str(tokens), *link)
            plans = daemon.ctl(*arguments, "-o", "json").json()["ranks"]
            self.assertEqual([p["ranks"] for p in plans], [1, 8, 64])
            for plan in plans:
                simulated = rank_schedule.simulate(model, plan["ranks"], tokens, plan)
                self.assertAlmostEqual(plan["seconds"] / simulated, 1, delta=0.02, msg=plan)
                self.assertLessEqual(plan["waiting_seconds"], plan["seconds"])
                one = plans[0]["seconds"] / plan["ranks"] / plan["seconds"]
                self.assertAlmostEqual(plan["efficiency"], one, delta=0.02)
            if link:
                self.assertEqual(plans[1]["link_bytes_per_s"], 50e9)
            table = daemon.ctl(*arguments).out
            self.assertIn(plans[0]["measured_on"] + "S", table)
            self.assertRegex(table, r"(?m)^ *64 ")
        self.assertEqual(daemon.ctl("plan", path, "--ranks", "0").code, 2)
        self.assertEqual(daemon.ctl("plan", path, "--ranks", "5000").code, 2)

    def test_what_is_no_rank_is_refused(self):
        rank_file = self.rank_file(2)
        for options, text in (({"rank_file": rank_file, "ranks": 2}, "one rank a process"),
                              ({"rank": 1}, "give rank_file"),
                              ({"rank_file": rank_file, "tensor_parallel": 3}, "must divide"),
                              ({"ranks": 3, "tensor_parallel": 2}, "number of ranks, 3"),
                              ({"rank_file": self.write("bad", "nowhere\nhost:1\n")}, "line 1")):
            daemon = Daemon(tempfile.mkdtemp(dir=self.folder), self.model, **options)
            daemon.start(expect_ready=False)
            self.assertNotEqual(daemon.process.wait(timeout=60 * PATIENCE), 0)
            self.assertIn(text, daemon.log_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
