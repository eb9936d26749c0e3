"""Every input that can be wrong: each gets its stated error, and nothing stored is lost."""
import os
import random
import socket
import struct
import subprocess
import time
import unittest

from harness import IntegrationTest, PATIENCE, program, prose


class FaultsTest(IntegrationTest):
    def corrupt(self, daemon, corpus, block, byte=1000):
        subprocess.run([program("corrupt_block"), daemon.data, corpus, str(block), str(byte)],
                       check=True)

    def test_a_flipped_byte_is_found_quarantined_and_recomputed(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 400))
        whole = self.ask(daemon, "a")
        self.assertEqual(daemon.stop(), 0)
        self.corrupt(daemon, "a", 2)
        daemon.start()
        found = daemon.ctl("verify", "a", "-o", "json")
        self.assertEqual(found.code, 10, found.err + found.out)
        healed = self.ask(daemon, "a")
        self.assertEqual(healed["answer"], whole["answer"])
        self.assertGreater(healed["usage"]["recomputed_tokens"], 0)
        self.assertEqual(daemon.ctl("verify", "a").code, 0)
        self.assertEqual(self.ask(daemon, "a")["usage"]["recomputed_tokens"], 0)

    def test_verify_repairs(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 400))
        self.assertEqual(daemon.stop(), 0)
        for block in (0, 3, 5):
            self.corrupt(daemon, "a", block)
        daemon.start()
        run = daemon.ctl("verify", "a", "--repair")
        self.assertEqual(run.code, 0, run.err + run.out)
        self.assertEqual(daemon.ctl("verify", "a").code, 0)

    def test_another_model_is_refused_by_name_of_the_difference(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))
        self.assertEqual(daemon.stop(), 0)
        daemon.model = os.path.join(self.folder, "other.gguf")
        self.make_model(daemon.model, seed=99, context=8192)
        daemon.start()
        run = daemon.ctl("ask", "a", "why?")
        self.assertNotEqual(run.code, 0)
        self.assertIn("weights", run.err)
        self.assertEqual(daemon.stop(), 0)
        daemon.model = self.model
        daemon.start()
        self.assertEqual(self.ask(daemon, "a")["usage"]["recomputed_tokens"], 0)

    def test_a_full_disk_fails_the_ingest_and_keeps_the_rest(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 200))
        before = self.ask(daemon, "a")["answer"]
        self.assertEqual(daemon.stop(), 0)
        daemon.start(env={"CORPUSD_FAULT": "payload.write=enospc"})
        run = daemon.ctl("ingest", "b", self.write("b.txt", prose(2, 200)), "-q")
        self.assertEqual(run.code, 8, run.err)
        self.assertEqual(self.ask(daemon, "a")["answer"], before)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(self.ask(daemon, "a")["answer"], before)
        self.assertEqual(daemon.ctl("rm", "b", "--yes").code, 0)
        self.ingest(daemon, "b", prose(2, 200))

    def test_the_disk_cap_is_a_quota(self):
        daemon = self.daemon(disk_bytes="1MiB")
        run = daemon.ctl("ingest", "b", self.write("b.txt", prose(2, 1300)), "-q")
        self.assertEqual(run.code, 8, run.err)
        self.assertIn("--disk-bytes", run.err)

    def test_a_truncated_model_file_is_one_sentence(self):
        with open(self.model, "rb") as file:
            whole = file.read()
        for size in (0, 3, 24, len(whole) // 2, len(whole) - 1):
            short = os.path.join(self.folder, "short.gguf")
            with open(short, "wb") as file:
                file.write(whole[:size])
            daemon = self.daemon(start=False)
            daemon.model = short
            daemon.start(expect_ready=False)
            self.assertEqual(daemon.process.wait(timeout=30 * PATIENCE), 1)
            self.assertIn("short.gguf", daemon.log_text())

    def test_a_second_daemon_names_the_first(self):
        daemon = self.daemon()
        second = self.daemon(start=False)
        second.data = daemon.data
        second.start(expect_ready=False)
        self.assertEqual(second.process.wait(timeout=30 * PATIENCE), 1)
        self.assertIn(str(daemon.process.pid), second.log_text())
        self.assertEqual(daemon.ctl("ls").code, 0)

    def test_a_frame_of_two_gigabytes_is_refused_unread(self):
        daemon = self.daemon()
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(20 * PATIENCE)
            raw.connect(daemon.socket)
            raw.sendall(struct.pack(">I", 0x7FFFFFFF) + b"x" * 100)
            answer = b""
            while piece := raw.recv(65536):
                answer += piece
            self.assertIn(b"limit", answer)
        self.assertEqual(daemon.ctl("ls").code, 0)

    def test_random_bytes_close_only_their_own_connection(self):
        seed = random.randrange(1 << 30)
        print(f"seed {seed}")
        chance = random.Random(seed)
        daemon = self.daemon()
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(daemon.socket)
                body = chance.randbytes(chance.randrange(200))
                try:
                    raw.sendall(struct.pack(">I", len(body)) + body)
                except BrokenPipeError:
                    pass
        self.assertEqual(daemon.ctl("ls").code, 0)

    def test_a_client_that_stops_reading_stalls_nobody(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))
        expected = self.ask(daemon, "a")["answer"]
        stuck = [daemon.popen("ask", "a", "why?", "--max-tokens", "400") for _ in range(3)]
        time.sleep(0.3)
        for client in stuck:
            client.send_signal(19)  # SIGSTOP
        self.assertEqual(self.ask(daemon, "a")["answer"], expected)
        for client in stuck:
            client.kill()
            client.communicate()
        self.wait_for("the next answer", lambda: self.ask(daemon, "a")["answer"] == expected)

    def test_questions_are_answered_while_a_prefill_runs(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))
        daemon.ctl("ingest", "b", self.write("b.txt", prose(2, 450)), "--detach")
        answers = {self.ask(daemon, "a")["answer"] for _ in range(3)}
        self.assertEqual(len(answers), 1)
        self.assertEqual(daemon.ctl("wait", "b", "--timeout", "60s").code, 0)

    def test_many_questions_at_once_agree(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 300))
        expected = self.ask(daemon, "a")["answer"]
        clients = [daemon.popen("ask", "a", "what is stored?", "--max-tokens", "12", "-q")
                   for _ in range(8)]
        for client in clients:
            out, err = client.communicate(timeout=120 * PATIENCE)
            self.assertEqual(client.returncode, 0, err)
            self.assertEqual(out.decode("utf-8", "replace").rstrip("\n"), expected.rstrip("\n"))

    def test_a_corpus_too_long_is_refused_with_count_and_limit(self):
        daemon = self.daemon()
        run = daemon.ctl("ingest", "a", self.write("a.txt", prose(1, 5000)), "-q",
                         "--mode", "exact")
        self.assertEqual(run.code, 2, run.err)
        self.assertIn("tokens", run.err)
        self.assertIn("at most", run.err)
        self.assertEqual(daemon.ctl("show", "a").code, 3)

    def test_exit_codes_of_contract(self):
        daemon = self.daemon()
        self.assertEqual(daemon.ctl("show", "nobody").code, 3)
        self.assertEqual(daemon.ctl("frobnicate").code, 2)
        self.assertEqual(daemon.ctl("ask", "nobody", "why?").code, 3)
        self.assertEqual(daemon.ctl("ingest", "a", "/no/such/path").code, 3)
        self.ingest(daemon, "a", prose(1, 50))
        self.assertNotEqual(
            daemon.ctl("ingest", "a", self.write("x.txt", "again")).code, 0)
        daemon.kill()
        self.assertEqual(daemon.ctl("ls").code, 7)


class AdminTest(IntegrationTest):
    def test_pins_names_and_tiers(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 200))
        self.assertEqual(daemon.ctl("pin", "a", "--tier", "host", "--ttl", "1h").code, 0)
        self.assertEqual(self.show(daemon, "a")["pinned"]["tier"], "host")
        self.assertNotEqual(daemon.ctl("evict", "a").code, 0)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(self.show(daemon, "a")["pinned"]["tier"], "host")
        self.assertEqual(daemon.ctl("unpin", "a").code, 0)
        self.assertIsNone(self.show(daemon, "a")["pinned"])
        self.assertEqual(daemon.ctl("warm", "a").code, 0)
        self.assertGreater(self.show(daemon, "a")["bytes"]["host"], 0)
        self.assertEqual(daemon.ctl("evict", "a", "--from", "host").code, 0)
        self.assertEqual(self.show(daemon, "a")["bytes"]["host"], 0)
        self.assertEqual(daemon.ctl("rename", "a", "b").code, 0)
        self.assertEqual(daemon.ctl("ls", "-o", "name").out.split(), ["b"])
        self.assertEqual(daemon.ctl("touch", "b", "--ttl", "1s").code, 0)
        self.wait_for("its expiry", lambda: daemon.ctl("show", "b").code == 3, seconds=90)

    def test_a_prefill_can_be_cancelled(self):
        daemon = self.daemon()
        daemon.ctl("ingest", "a", self.write("a.txt", prose(1, 450)), "--detach")
        daemon.ctl("cancel", "1")
        self.wait_for("the job's end", lambda: daemon.ctl("job", "1", "-o", "json").json()["state"]
                      in ("cancelled", "done"))
        self.assertIn(self.show(daemon, "a")["state"], ("cancelled", "ready"))
        self.assertEqual(daemon.ctl("rm", "a", "--yes").code, 0)

    def test_output_modes(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 50))
        self.assertEqual(daemon.ctl("ls", "-o", "json").json()[0]["name"], "a")
        for mode in ("table", "wide", "jsonl", "yaml", "name"):
            run = daemon.ctl("ls", "-o", mode)
            self.assertEqual(run.code, 0)
            self.assertIn("a", run.out)
        for verb in ("df", "jobs", "doctor", "version"):
            self.assertEqual(daemon.ctl(verb, "-o", "json").code, 0, verb)
        for shell in ("bash", "zsh", "fish"):
            self.assertEqual(daemon.ctl("completion", shell).code, 0)
        error = daemon.ctl("show", "nobody", "-o", "json").err
        self.assertIn('"not_found"', error.replace(" ", ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
