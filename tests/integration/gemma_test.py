"""Gemma 3 270M through the daemon: layers with windows, a vocabulary of 262,144 and Q4_K_M's block
types. The model comes from PyPI; its tokens and logits are held against llama.cpp's."""
import json
import os
import subprocess
import sys
import unittest

from harness import PATIENCE, ROOT, IntegrationTest, program

sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import peer_install  # noqa: E402

TEXT = "/usr/share/common-licenses/MPL-2.0"
# Between our arithmetic (16-bit integers or bfloat16) and llama.cpp's (8-bit activations).
KLD_MAX = 0.02


class GemmaTest(IntegrationTest):
    def setUp(self):
        super().setUp()
        run = subprocess.run([os.path.join(ROOT, "deploy", "fetch_model"), "gemma3"],
                             capture_output=True, text=True, check=False)
        if run.returncode != 0:
            self.skipTest(run.stderr.strip())
        self.model = run.stdout.strip()

    def test_a_follow_up_after_a_restart_is_the_same_and_computes_nothing(self):
        daemon = self.daemon(kv_format="bf16")  # the others begin with a calibration, a minute long
        with open(TEXT, encoding="utf-8") as file:
            self.ingest(daemon, "licence", file.read())
        question = "Who is the license steward?"
        cold = self.ask(daemon, "licence", question, "--no-cache")
        warm = self.ask(daemon, "licence", question)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        again = self.ask(daemon, "licence", question)
        corpus = self.show(daemon, "licence")
        self.assertEqual(corpus["mode"], "exact")
        self.assertGreater(corpus["tokens"], 3000)
        self.assertEqual(cold["usage"]["recomputed_tokens"], corpus["tokens"])
        for report in (warm, again):
            self.assertEqual(report["usage"]["recomputed_tokens"], 0)
            self.assertEqual(report["usage"]["cached_tokens"], corpus["tokens"])
            self.assertEqual(report["answer"], warm["answer"])
        self.assertTrue(warm["answer"].strip())
        self.assertEqual(again["read"]["host_bytes"], 0)

    def test_tokens_and_logits_are_those_of_llama_cpp(self):
        try:
            python, environment = peer_install.install_llama(peer_install.cache_folder(), 2)
        except RuntimeError as error:
            self.skipTest(f"llama.cpp could not be installed: {error}")
        base = os.path.join(self.folder, "base")
        with open(TEXT, encoding="utf-8") as file:
            text = self.write("text", file.read())
        windows = ["--ctx", "256", "--threads", "2"]
        subprocess.run([python, os.path.join(ROOT, "tests", "eval", "kv_type_runner.py"), "--model",
                        self.model, "--text", text, "--make-base", base, "--windows", "2",
                        *windows], env=environment, check=True, stdout=subprocess.DEVNULL,
                       timeout=600 * PATIENCE)
        # That the tokens are ours is checked by the command.
        run = subprocess.run([program("corpus-eval"), "kld", "--model", self.model, "--base", base,
                              "--file", text, "--threads", "2", "-o", "json"],
                             capture_output=True, text=True, check=False, timeout=600 * PATIENCE)
        self.assertEqual(run.returncode, 0, run.stderr)
        report = json.loads(run.stdout)
        print(f"over {report['scored_tokens']} tokens: KLD {report['kld']['value']:.4f}, same top "
              f"token {100 * report['same_top']['value']:.1f} %")
        self.assertLess(report["kld"]["value"], KLD_MAX)
        self.assertGreater(report["same_top"]["value"], 0.93)


if __name__ == "__main__":
    unittest.main(verbosity=2)
