"""A corpus as a file, from one daemon to another; scrubs; why a block misses."""
import os
import subprocess
import unittest

from harness import IntegrationTest, program, prose


class BundleTest(IntegrationTest):
    def export(self, daemon, name):
        path = os.path.join(self.folder, name + ".corpus")
        run = daemon.ctl("export", name, path, "--force", "-o", "json")
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(run.json()["bytes"], os.path.getsize(path))
        return path

    def test_an_imported_corpus_answers_without_computing_a_token(self):
        for kv_format in ("bf16", "int8"):
            with self.subTest(kv_format):
                source, target = self.daemon(kv_format=kv_format), self.daemon()
                self.ingest(source, "a", prose(1, 500))
                expected = self.ask(source, "a", "why?")["answer"]
                run = target.ctl("import", self.export(source, "a"), "--name", "b")
                self.assertEqual(run.code, 0, run.err)
                self.assertEqual(target.stop(), 0)
                target.start()
                report = self.ask(target, "b", "why?")
                self.assertEqual(report["answer"], expected)
                self.assertEqual(report["usage"]["recomputed_tokens"], 0)
                self.assertEqual(target.ctl("verify", "b").code, 0)
                source.kill()
                target.kill()

    def test_a_killed_import_goes_on_and_through_a_pipe(self):
        source, target = self.daemon(), self.daemon()
        self.ingest(source, "a", prose(1, 500))
        with open(self.export(source, "a"), "rb") as file:
            bundle = file.read()
        cut = target.ctl("import", "-", stdin=bundle[:len(bundle) * 2 // 3])
        self.assertEqual(cut.code, 10, cut.err)
        self.assertIn("cut off", cut.err)
        target.kill()
        target.start()
        self.assertEqual(self.show(target, "a")["state"], "cancelled")
        blocks = self.show(target, "a")["blocks"]
        self.assertGreater(blocks, 0)
        run = target.ctl("import", "-", stdin=bundle)
        self.assertEqual(run.code, 0, run.err)
        self.assertIn(f"{blocks} of them were here already", run.out)
        self.assertEqual(self.ask(target, "a")["answer"], self.ask(source, "a")["answer"])

    def test_a_bundle_of_another_model_or_a_damaged_one_is_refused(self):
        source = self.daemon()
        self.ingest(source, "a", prose(1, 300))
        path = self.export(source, "a")
        self.make_model(self.model, context=8192, seed=2)
        other = self.daemon()
        run = other.ctl("import", path)
        self.assertEqual(run.code, 2, run.err)
        self.assertIn("weights: bundle '", run.err)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.assertEqual(source.ctl("import", path, "--name", "b").code, 10)
        self.assertNotEqual(self.show(source, "b")["state"], "ready")

    def test_a_scrub_finds_damage_and_the_engine_computes_it_again(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 500))
        expected = self.ask(daemon, "a")["answer"]
        self.assertEqual(daemon.ctl("scrub").code, 0)
        self.assertEqual(daemon.stop(), 0)
        subprocess.run([program("corrupt_block"), daemon.data, "a", "2"], check=True)
        daemon.start()
        run = daemon.ctl("scrub", "-o", "json")
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(run.json()["scrub"]["damaged"], 1)
        self.assertEqual(run.json()["scrub"]["repaired"], 1)
        self.assertEqual(daemon.ctl("verify", "a").code, 0)
        self.assertEqual(self.ask(daemon, "a")["answer"], expected)
        checks = {c["name"]: c["text"] for c in daemon.ctl("doctor", "-o", "json").json()["checks"]}
        self.assertIn("1 damaged, 0 missing, 1 repaired", checks["scrub"])

    def test_a_miss_is_explained(self):
        daemon = self.daemon()
        text = prose(1, 300)
        self.ingest(daemon, "a", text)
        path = self.write("a.txt", text)

        def reason(*arguments):
            run = daemon.ctl("explain-miss", *arguments, "-o", "json")
            self.assertEqual(run.code, 0, run.err)
            return run.json()

        self.assertEqual(reason("a")["reason"], "none")
        self.assertEqual(reason("--text", path)["reason"], "none")
        other = reason("--text", path, "--kv-format", "int8")
        self.assertEqual(other["reason"], "identity")
        self.assertEqual([d["field"] for d in other["differences"]], ["kv_format"])
        preamble = self.write("preamble.txt", "You are a pirate.")
        other = reason("--text", path, "--preamble", preamble)
        self.assertEqual((other["reason"], other["other_corpus"]), ("identity", "a"))
        self.assertEqual(other["differences"][0]["field"], "preamble")
        self.assertEqual(reason("--text", self.write("new.txt", prose(9, 300)))["reason"],
                         "never_seen")
        self.assertEqual(daemon.ctl("evict", "a", "--from", "disk").code, 0)
        self.assertEqual(reason("a")["reason"], "evicted")
        checks = {c["name"]: c["text"] for c in daemon.ctl("doctor", "-o", "json").json()["checks"]}
        self.assertIn("never_seen 1", checks["misses"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
