"""The examples of the Python package, run as people run them, against a real daemon."""
import os
import re
import subprocess
import sys
import threading
import unittest
import urllib.error
import urllib.request

from harness import IntegrationTest, PATIENCE, ROOT, Run
from python_packages import make_importable

PYTHONPATH = os.pathsep.join(make_importable())
EXAMPLES = os.path.join(ROOT, "client", "python", "examples")


class PythonExamplesTest(IntegrationTest):
    def command(self, name, *arguments):
        return [sys.executable, os.path.join(EXAMPLES, name), *arguments]

    def environment(self, daemon):
        return {**os.environ, "PYTHONPATH": PYTHONPATH, "CORPUSD_SOCKET": daemon.socket}

    def run_example(self, daemon, name, *arguments):
        run = Run(subprocess.run(self.command(name, *arguments), env=self.environment(daemon),
                                 capture_output=True, timeout=120 * PATIENCE, check=False))
        self.assertEqual(run.code, 0, run.err)
        return run

    def test_sre_question_computes_only_what_grew(self):
        daemon = self.daemon()
        first = self.run_example(daemon, "sre_question.py")
        self.assertIn("demo", first.out)  # a citation
        names = [source["path"] for source in self.show(daemon, "shop")["sources"]]
        self.assertEqual([os.path.basename(name) for name in names],
                         ["README.md", "cart.py", "payment.py", "settings.py",
                          "checkout.log#L1-L9"])
        logs = os.path.join(self.folder, "logs")
        os.mkdir(logs)
        lines = [f"10:00:{i % 60:02} INFO request {i} took {i % 97} ms\n" for i in range(3000)]
        with open(os.path.join(logs, "a.log"), "w", encoding="utf-8") as file:
            file.writelines(lines)
        self.run_example(daemon, "sre_question.py", "--logs", logs, "what took long?")
        with open(os.path.join(logs, "a.log"), "a", encoding="utf-8") as file:
            file.write("10:51:00 ERROR it broke\n")
        grown = self.run_example(daemon, "sre_question.py", "--logs", logs, "what broke?")
        # "shop: 9,000 tokens, 3,000 of them computed now": two of the log's pieces are unchanged.
        told = re.search(r"^shop: ([\d,]+) tokens, ([\d,]+) of them", grown.err, re.MULTILINE)
        total, computed = (int(number.replace(",", "")) for number in told.groups())
        self.assertGreater(computed, 0)
        self.assertLess(computed, total / 2)

    def test_contract_review_asks_all_questions_and_keeps_the_contract(self):
        daemon = self.daemon()
        first = self.run_example(daemon, "contract_review.py")
        self.assertEqual(first.out.count("?\n  "), 6, first.out)
        self.assertIn("[contract.txt:", first.out)
        again = self.run_example(daemon, "contract_review.py")
        self.assertEqual(again.out, first.out)
        self.assertEqual(len(daemon.ctl("jobs", "-o", "json").json()), 1)

    def test_macro_rag_service_streams_answers_over_http(self):
        daemon = self.daemon()
        docs = os.path.join(EXAMPLES, "demo")
        service = subprocess.Popen(
            self.command("macro_rag_service.py", "--port", "0", f"docs={docs}"),
            env=self.environment(daemon), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(service.communicate)
        self.addCleanup(service.kill)
        url = service.stdout.readline().decode().strip()
        self.assertTrue(url.startswith("http://127.0.0.1:"), service.poll())
        answers = []

        def ask():
            with urllib.request.urlopen(url + "docs", data=b"what is stored?",
                                        timeout=60 * PATIENCE) as reply:
                answers.append(reply.read().decode("utf-8"))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 6)
        self.assertEqual(len(set(answers)), 1)
        self.assertIn(docs, answers[0])
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(url + "nobody", data=b"why?", timeout=60 * PATIENCE)
        self.assertEqual(raised.exception.code, 404)
        raised.exception.close()
        told = self.ask(daemon, "docs", "what is stored?")["answer"]
        self.assertTrue(answers[0].startswith(told.rstrip("\ufffd")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
