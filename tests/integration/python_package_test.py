"""The Python package as pip builds and installs it, with the oldest and the newest protobuf that it
allows, and mypy --strict over it. Needs PyPI."""
import os
import shutil
import subprocess
import sys
import tarfile
import unittest

from harness import IntegrationTest, PATIENCE, ROOT, prose

QUESTION = """
import sys, corpusd, google.protobuf
with corpusd.connect(sys.argv[1]) as client:
    client.wait(client.ingest(sys.argv[2], texts={"a": sys.argv[3]}))
    print(google.protobuf.__version__, client.ask(sys.argv[2], "why?", max_tokens=4).usage)
"""


class PythonPackageTest(IntegrationTest):
    def setUp(self):
        super().setUp()
        # A copy, so that nothing is built in the tree.
        self.source = os.path.join(self.folder, "client", "python")
        ignore = shutil.ignore_patterns("protocol.desc", "*.egg-info", "build", "__pycache__")
        for part in ("python", "proto"):
            shutil.copytree(os.path.join(ROOT, "client", part),
                            os.path.join(self.folder, "client", part), ignore=ignore)

    def pip(self, *arguments):
        run = subprocess.run([sys.executable, "-m", "pip", "-q", "--no-input",
                              "--disable-pip-version-check", *arguments], check=False,
                             capture_output=True, timeout=300 * PATIENCE)
        self.assertEqual(run.returncode, 0, run.stderr.decode())

    def wheel(self, source):
        folder = os.path.join(self.folder, "wheels-of-" + os.path.basename(source))
        self.pip("wheel", "--no-deps", "-w", folder, source)
        [name] = os.listdir(folder)
        return os.path.join(folder, name)

    def sdist(self):
        subprocess.run(
            [sys.executable, "-c", "import sys; sys.path[:0] = ['packaging']\n"
             "import protocol_backend; protocol_backend.build_sdist('dist')"],
            cwd=self.source, check=True, capture_output=True)
        [name] = os.listdir(os.path.join(self.source, "dist"))
        return os.path.join(self.source, "dist", name)

    def use(self, daemon, wheel, requirement):
        """Installs both somewhere alone, and asks a question. RETURNS what was printed."""
        target = os.path.join(self.folder, "installed-" + requirement)
        self.pip("install", "--target", target, wheel, requirement)
        run = subprocess.run([sys.executable, "-c", QUESTION, daemon.socket,
                              "c" + str(len(os.listdir(self.folder))), prose(1, 100)],
                             env={**os.environ, "PYTHONPATH": target}, cwd=self.folder,
                             capture_output=True, timeout=60 * PATIENCE, check=False)
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        return run.stdout.decode()

    def test_the_wheel_works_with_the_oldest_and_the_newest_protobuf(self):
        daemon = self.daemon()
        wheel = self.wheel(self.source)
        old = self.use(daemon, wheel, "protobuf==4.21.*")
        self.assertTrue(old.startswith("4.21."), old)
        self.assertIn("completion_tokens=4", old)
        new = self.use(daemon, wheel, "protobuf<8")
        self.assertGreater(int(new.split(".")[0]), 4, new)
        self.assertEqual(old.split(" ", 1)[1].split("cached")[0],
                         new.split(" ", 1)[1].split("cached")[0])

    def test_a_source_distribution_needs_no_protoc(self):
        self.pip("install", "--target", os.path.join(self.folder, "setuptools"), "setuptools>=64")
        os.environ["PYTHONPATH"] = os.path.join(self.folder, "setuptools")
        self.addCleanup(os.environ.pop, "PYTHONPATH")
        packed = self.sdist()
        folder = os.path.join(self.folder, "unpacked")
        with tarfile.open(packed) as archive:
            archive.extractall(folder)
        [name] = os.listdir(folder)
        wheel = self.wheel(os.path.join(folder, name))
        self.assertIn("completion_tokens=4", self.use(self.daemon(), wheel, "protobuf<8"))

    def test_mypy_strict_finds_nothing(self):
        target = os.path.join(self.folder, "mypy")
        self.pip("install", "--target", target, "mypy")
        run = subprocess.run([sys.executable, "-m", "mypy", "src", "--cache-dir", os.devnull],
                             cwd=self.source, env={**os.environ, "PYTHONPATH": target},
                             capture_output=True, timeout=300 * PATIENCE, check=False)
        self.assertEqual(run.returncode, 0, run.stdout.decode() + run.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
