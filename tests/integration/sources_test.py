"""Corpora of archives, mail, JSON lines and logs, and what plan says of them beforehand."""
import io
import os
import tarfile
import unittest

from harness import IntegrationTest, prose


class SourcesTest(IntegrationTest):
    def make_sources(self):
        folder = os.path.join(self.folder, "docs")
        os.mkdir(folder)
        with tarfile.open(os.path.join(folder, "a.tar.gz"), "w:gz") as archive:
            for name, content in {"in/a.txt": prose(1, 120).encode(), "../b.txt": b"outside\n",
                                  "in/c.bin": bytes(100)}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        texts = {"b.jsonl": '{"text": "one"}\nbroken\n{"text": "two"}\n',
                 "c.log": "".join(f"line {i} of the log\n" for i in range(1, 21)),
                 "d.eml": "Subject: hello\n\nthe body\n"}
        for name, text in texts.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        with open(os.path.join(folder, "e.txt"), "w", encoding="latin-1") as file:
            file.write("a café in latin-1\n")
        return folder

    def test_documents_and_what_was_left_out(self):
        folder = self.make_sources()
        daemon = self.daemon()
        run = daemon.ctl("ingest", "docs", folder, "-o", "json", "--json-text", "text")
        self.assertEqual(run.code, 0, run.err)
        made = run.json()
        labels = [source["path"][len(folder) + 1:] for source in made["sources"]]
        self.assertEqual(labels, ["a.tar.gz!in/a.txt", "a.tar.gz!../b.txt", "b.jsonl#L1",
                                  "b.jsonl#L3", "c.log#L1-L20", "d.eml", "e.txt"])
        self.assertEqual(made["skipped"]["counts"], {"binary": 1, "bad_line": 1})
        self.assertEqual(made["skipped_files"], 1)
        self.assertEqual(made["converted_sources"], 1)
        listed = daemon.ctl("ingest", "again", folder, "-v")
        self.assertIn("a.tar.gz!in/c.bin: binary", listed.err)
        bomb = daemon.ctl("ingest", "bomb", folder, "--max-bytes", "200")
        self.assertEqual(bomb.code, 8, bomb.err)
        self.assertEqual(daemon.ctl("show", "bomb").code, 3)

    def test_plan_says_what_an_ingest_takes(self):
        folder = self.make_sources()
        daemon = self.daemon()
        before = daemon.ctl("plan", folder, "--mode", "exact", "-o", "json")
        self.assertEqual(before.code, 0, before.err)
        self.assertIsNone(before.json()["prefill"])
        run = daemon.ctl("plan", folder, "--mode", "exact", "-o", "json", "--measure")
        self.assertEqual(run.code, 0, run.err)
        plan = run.json()
        self.assertGreater(plan["prefill"]["tokens_per_s"], 0)
        self.assertEqual(daemon.ctl("ls", "-o", "json").json(), [])  # the sample is gone
        made = daemon.ctl("ingest", "docs", folder, "--mode", "exact", "-o", "json").json()
        self.assertEqual(plan["documents"], len(made["sources"]))
        self.assertAlmostEqual(plan["tokens"], made["tokens"], delta=0.05 * made["tokens"] + 8)
        sizes = {entry["name"]: entry["bytes"] for entry in plan["formats"]}
        self.assertEqual(sizes[made["kv_format"]], made["bytes"]["stored"])
        after = daemon.ctl("plan", folder, "-o", "json").json()
        self.assertEqual(after["prefill"]["measured_on"], "docs")


if __name__ == "__main__":
    unittest.main()
