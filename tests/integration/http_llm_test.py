"""The `llm` command, unmodified, with the daemon as one of its models: questions whole and
streamed, options, a conversation continued, its log of tokens, and an unknown corpus.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import PATIENCE, Run
from http_clients import QUESTION, HttpClientTest
from pypi_packages import require

MISSING = require("llm", "llm>=0.27,<1")
if MISSING:
    print("skipped: " + MISSING)
    sys.exit(0)

GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "12")


class LlmTest(HttpClientTest):
    def setUp(self):
        super().setUp()
        # Its database is made in two dozen synced steps: in memory, where there is such a folder.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.home = tempfile.mkdtemp(prefix="corpusd-it-", dir=memory)
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        models = [{"model_id": "docs", "model_name": self.model_id + "@docs"},
                  {"model_id": "plain", "model_name": self.model_id},
                  {"model_id": "words", "model_name": self.model_id + "@docs", "completion": True},
                  {"model_id": "nobody", "model_name": self.model_id + "@nobody"}]
        with open(os.path.join(self.home, "extra-openai-models.yaml"), "w",
                  encoding="utf-8") as file:  # JSON is YAML
            json.dump([{**model, "api_base": self.url} for model in models], file)

    def llm(self, *arguments, code=0):
        run = Run(subprocess.run(
            [sys.executable, "-m", "llm", *arguments], stdin=subprocess.DEVNULL,
            capture_output=True, timeout=120 * PATIENCE, check=False,
            env={**os.environ, "LLM_USER_PATH": self.home, "OPENAI_API_KEY": "none",
                 "PYTHONPATH": os.pathsep.join(sys.path)}))
        self.assertEqual(run.code, code, run.err)
        return run

    def test_answers_and_streams_are_those_of_corpusctl(self):
        expected = self.expected()["answer"]
        self.assertIn("docs", self.llm("models", "list").out)
        for options in ((), ("--no-stream",)):
            out = self.llm("-m", "docs", *GREEDY, *options, QUESTION).out
            self.assertEqual(out, expected + "\n")

    def test_a_conversation_goes_on_and_is_logged_with_its_tokens(self):
        self.llm("-m", "docs", *GREEDY, "-s", "Be brief.", QUESTION)
        self.llm("-m", "docs", *GREEDY, "-c", "And then?")
        logged = json.loads(self.llm("logs", "-n", "2", "--json").out)
        first, second = sorted(logged, key=lambda entry: entry["datetime_utc"])
        self.assertEqual(first["conversation_id"], second["conversation_id"])
        self.assertEqual((first["prompt"], first["system"], second["prompt"]),
                         (QUESTION, "Be brief.", "And then?"))
        self.assertEqual((first["output_tokens"], second["output_tokens"]), (12, 12))
        self.assertGreater(second["input_tokens"], first["input_tokens"])

    def test_without_a_corpus_and_as_plain_text(self):
        for model in ("plain", "words"):
            whole = self.llm("-m", model, *GREEDY, "--no-stream", "once upon").out
            self.assertEqual(self.llm("-m", model, *GREEDY, "once upon").out, whole)
            self.assertTrue(whole.strip())

    def test_what_fails_is_told(self):
        self.assertIn("nobody", self.llm("-m", "nobody", QUESTION, code=1).err)
        self.assertIn("top_p", self.llm("-m", "docs", "-o", "top_p", "2", QUESTION, code=1).err)


if __name__ == "__main__":
    unittest.main()
