"""A real daemon on a private folder and socket, driven by the real corpusctl.

For integration tests. Programs come from CORPUSD_BUILD (a build folder; default build/release).
The model is a tiny random one.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("CORPUSD_BUILD", os.path.join(ROOT, "build", "release"))
# Sanitizers make everything slower; deadlines follow.
PATIENCE = float(os.environ.get("CORPUSD_TEST_PATIENCE", "1"))
WORDS = ("corpus block chain root tier pin lease job session format the of and a stored prefix "
         "daemon reads answers tokens keys values pages disk host memory question resume").split()


def program(name):
    return os.path.join(BUILD, "bin", name)


def prose(seed, words):
    """Text that is the same for the same seed, and hardly repeats."""
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) + (str(source.randrange(1000)) if i % 7 == 0 else "")
                    for i in range(words))


class Run:
    """What a command printed and how it ended."""

    def __init__(self, completed):
        self.code = completed.returncode
        self.out = completed.stdout.decode("utf-8", "replace")
        self.err = completed.stderr.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.out)


class Daemon:
    """One data folder; start, stop and kill a corpusd on it."""

    def __init__(self, folder, model, **options):
        self.folder, self.model, self.options = folder, model, options
        self.socket = os.path.join(folder, "s")
        self.data = os.path.join(folder, "data")
        self.process = None

    def command(self):
        options = {"data-dir": self.data, "socket": self.socket, "model": self.model, "threads": 2,
                   **self.options}
        return [program("corpusd")] + [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]

    def start(self, env=None, expect_ready=True):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log,
                                            env={**os.environ, **(env or {})})
        if not expect_ready:
            return self
        deadline = time.monotonic() + 60 * PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError("corpusd ended: " + self.log_text()[-2000:])
            if os.path.exists(self.socket) and self.ctl("version").code == 0:
                return self
            time.sleep(0.02)
        raise AssertionError("corpusd did not become ready: " + self.log_text()[-2000:])

    def log_text(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        """SIGTERM. RETURNS the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60 * PATIENCE)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ctl(self, *arguments, stdin=None, timeout=120):
        return Run(subprocess.run([program("corpusctl"), "--socket", self.socket, *arguments],
                                  input=stdin,
                                  stdin=None if stdin is not None else subprocess.DEVNULL,
                                  capture_output=True, timeout=timeout * PATIENCE, check=False))

    def popen(self, *arguments):
        return subprocess.Popen([program("corpusctl"), "--socket", self.socket, *arguments],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)


class IntegrationTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="corpusd-it-")
        self.daemons = []
        self.model = os.path.join(self.folder, "tiny.gguf")
        self.make_model(self.model, context=8192)

    def tearDown(self):
        for daemon in self.daemons:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_model(self, path, **options):
        arguments = [x for k, v in options.items() for x in (f"--{k}", str(v))]
        subprocess.run([program("make_tiny_model"), path, *arguments], check=True)

    def daemon(self, start=True, **options):
        folder = tempfile.mkdtemp(dir=self.folder)
        daemon = Daemon(folder, self.model, **options)
        self.daemons.append(daemon)
        return daemon.start() if start else daemon

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def ingest(self, daemon, name, text, *options):
        run = daemon.ctl("ingest", name, self.write(name + ".txt", text), "-q", *options)
        self.assertEqual(run.code, 0, run.err)

    def ask(self, daemon, name, question="what is stored?", *options):
        """RETURNS the answer object."""
        run = daemon.ctl("ask", name, question, "--max-tokens", "12", "-o", "json", *options)
        self.assertEqual(run.code, 0, run.err)
        return run.json()

    def show(self, daemon, name):
        run = daemon.ctl("show", name, "-o", "json")
        self.assertEqual(run.code, 0, run.err)
        return run.json()

    def wait_for(self, what, condition, seconds=30):
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.02)
        self.fail(f"no sign of {what} within {seconds} s")
