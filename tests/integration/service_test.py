"""The daemon under a service manager: its socket, its notifications, its log; and what packages
hold of it."""
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import unittest

from harness import BUILD, IntegrationTest, PATIENCE, ROOT, prose

DEPLOY = os.path.join(ROOT, "deploy")


class ServiceTest(IntegrationTest):
    def start_with(self, daemon, listener=None, env=None):
        """As a service manager does: a listening socket as descriptor 3, and LISTEN_PID."""
        command = daemon.command()
        if listener is not None:
            # A shell knows its own pid, and becomes the daemon under it.
            words = " ".join(f"'{word}'" for word in command)
            command = ["/bin/sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS=1 exec {words} 3<&{listener}"]
            if listener == 3:
                command[2] = f"LISTEN_PID=$$ LISTEN_FDS=1 exec {words}"
        with open(os.path.join(daemon.folder, "log"), "ab") as log:
            daemon.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **(env or {})},
                pass_fds=() if listener is None else (listener,))

    def test_a_socket_that_was_made_before_outlives_the_daemon(self):
        daemon = self.daemon(start=False)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(daemon.socket)
            listener.listen(16)
            inode = os.stat(daemon.socket).st_ino
            descriptor = os.dup(listener.fileno())
        self.addCleanup(os.close, descriptor)
        answers = []
        # A client that is there before the daemon waits for it.
        early = threading.Thread(target=lambda: answers.append(daemon.ctl("ls", timeout=60).code))
        early.start()
        self.start_with(daemon, descriptor)
        early.join(60 * PATIENCE)
        self.assertEqual(answers, [0], daemon.log_text())
        self.ingest(daemon, "a", prose(1, 100))
        expected = self.ask(daemon, "a")["answer"]
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(os.stat(daemon.socket).st_ino, inode)
        self.start_with(daemon, descriptor)
        self.assertEqual(self.ask(daemon, "a")["answer"], expected)
        self.assertEqual(os.stat(daemon.socket).st_ino, inode)
        self.assertEqual(daemon.stop(), 0)

    def start_with_named(self, daemon, listeners):
        """The same with several sockets, (name, socket)."""
        words = " ".join(f"'{word}'" for word in daemon.command())
        # Out of the way of the numbers that they get.
        descriptors = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 40)
                       for _, listener in listeners]
        names = ":".join(name for name, _ in listeners)
        places = " ".join(f"{3 + i}<&{descriptor}" for i, descriptor in enumerate(descriptors))
        command = (f"LISTEN_PID=$$ LISTEN_FDS={len(listeners)} LISTEN_FDNAMES={names} "
                   f"exec {words} {places}")
        with open(os.path.join(daemon.folder, "log"), "ab") as log:
            daemon.process = subprocess.Popen(["/bin/bash", "-c", command], stdout=log, stderr=log,
                                              pass_fds=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    @staticmethod
    def get(sock, target):
        """The status of GET over a connected socket."""
        with sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            sock.settimeout(60 * PATIENCE)
            return int(sock.recv(4096).split(b" ", 2)[1]), target

    def test_http_speaks_on_sockets_that_were_made_before(self):
        daemon = self.daemon(start=False, http="fd:http,unix:" + os.path.join(self.folder, "h"))
        with socket.socket() as tcp, socket.socket() as other, \
                socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as placed:
            for listener in (tcp, other):
                listener.bind(("127.0.0.1", 0))
            named.bind(os.path.join(self.folder, "n"))
            placed.bind(os.path.join(self.folder, "h"))
            inode = os.stat(os.path.join(self.folder, "h")).st_ino
            for listener in (tcp, other, named, placed):
                listener.listen(16)
            self.start_with_named(daemon, [("http", tcp), ("else", other), ("http", named),
                                           ("corpusd.socket", placed)])
            # Clients that are there before the daemon wait for it.
            self.assertEqual(self.get(socket.create_connection(tcp.getsockname()), "tcp"),
                             (200, "tcp"))
            for path in ("n", "h"):
                client = socket.socket(socket.AF_UNIX)
                client.connect(os.path.join(self.folder, path))
                self.assertEqual(self.get(client, path), (200, path))
            self.assertEqual(daemon.ctl("version").code, 0)
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(os.stat(os.path.join(self.folder, "h")).st_ino, inode)
            # It was not asked for.
            other.setblocking(False)
            self.assertRaises(BlockingIOError, other.accept)

    def test_a_socket_that_others_could_reach_or_that_is_not_there_is_refused(self):
        with socket.socket() as everywhere:
            everywhere.bind(("0.0.0.0", 0))
            everywhere.listen(1)
            for name, why in (("http", "loopback"), ("other", "FileDescriptorName=http")):
                daemon = self.daemon(start=False, http="fd:http")
                self.start_with_named(daemon, [(name, everywhere)])
                self.assertEqual(daemon.process.wait(timeout=60 * PATIENCE), 1)
                self.assertIn(why, daemon.log_text())

    def test_it_says_when_it_serves_that_it_lives_and_that_it_stops(self):
        daemon = self.daemon(start=False)
        path = os.path.join(daemon.folder, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(60 * PATIENCE)
            self.start_with(daemon, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"})
            self.assertEqual(manager.recv(100), b"READY=1")
            self.assertEqual(daemon.ctl("version").code, 0)
            for _ in range(3):
                self.assertEqual(manager.recv(100), b"WATCHDOG=1")
            daemon.process.terminate()
            told = manager.recv(100)
            while told == b"WATCHDOG=1":
                told = manager.recv(100)
            self.assertEqual(told, b"STOPPING=1")
        self.assertEqual(daemon.process.wait(timeout=60 * PATIENCE), 0)

    def test_a_log_that_was_moved_away_is_opened_again(self):
        log = os.path.join(self.folder, "corpusd.log")
        daemon = self.daemon(log_file=log, log_format="json")
        self.assertEqual(os.stat(log).st_mode & 0o777, 0o640)
        self.ingest(daemon, "a", prose(1, 50))
        os.rename(log, log + ".1")
        daemon.process.send_signal(1)
        self.wait_for("the new log", lambda: os.path.exists(log))
        self.ask(daemon, "a")
        self.wait_for("the question in it", lambda: '"event":"query"' in self.read(log))
        self.assertIn('"event":"log_reopened"', self.read(log))
        # Every line of a request has its id.
        self.assertRegex(self.read(log), r'"event":"query".*"request":"rpc-\d+-\d+"')
        self.assertIn('"event":"ingest"', self.read(log + ".1"))
        self.assertNotIn('"event":"query"', self.read(log + ".1"))
        self.assertEqual(daemon.stop(), 0)

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8") as file:
            return file.read()


class ConfigCheckTest(IntegrationTest):
    def check(self, text):
        path = self.write("corpusd.toml", text)
        return subprocess.run([os.path.join(BUILD, "bin", "corpusd"), "config", "check",
                               "--config", path], capture_output=True, text=True, check=False)

    def test_all_that_is_wrong_is_said_with_its_line(self):
        access = self.write("access.toml", '[users]\nroot = "king"\n')
        run = self.check(f'threads = "many"\naccess = "{access}"\nmodel = "/nonexistent"\n')
        self.assertEqual(run.returncode, 2)
        self.assertIn(f'access = "{access}"  # file ', run.stdout)
        for problem in ("line 1)", "'users.root' in line 2 of", "model = '/nonexistent'"):
            self.assertIn(problem, run.stderr)
        self.assertEqual(len(run.stderr.splitlines()), 3)
        run = self.check("threads = 2\n")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertRegex(run.stdout, r'(?m)^threads = "2"  # file .*, line 1$')


class PackagingTest(unittest.TestCase):
    def test_manual_pages_name_every_verb_and_option(self):
        help_text = subprocess.run([os.path.join(BUILD, "bin", "corpusctl"), "--help"],
                                   check=True, capture_output=True, text=True).stdout
        verbs = re.findall(r"^  ([a-z][a-z-]+)  ", help_text.split("Subcommands:")[1],
                           re.MULTILINE)
        self.assertGreater(len(verbs), 25)
        folder = os.path.join(BUILD, "man-test")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, os.path.join(DEPLOY, "make_man"),
                        os.path.join(BUILD, "bin"), folder], check=True)
        pages = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                pages[name] = file.read().replace("\\-", "-")
            self.assertTrue(pages[name].startswith(".TH "), name)
        self.assertEqual(sorted(pages), ["corpusctl.1", "corpusd.8", "corpusd.toml.5"])
        for verb in verbs:
            self.assertRegex(pages["corpusctl.1"], rf"(?m)^\.SS corpusctl {verb}\b")
        with open(os.path.join(DEPLOY, "corpusd.toml"), encoding="utf-8") as file:
            keys = re.findall(r"^# (\w+) = ", file.read(), re.MULTILINE)
        self.assertGreater(len(keys), 25)
        for key in keys:
            self.assertRegex(pages["corpusd.toml.5"], rf"(?m)^\.B {key}\b")
        for number in (0, 2, 3, 124, 130):
            self.assertRegex(pages["corpusctl.1"], rf"(?m)^\.B {number}$")
        if shutil.which("man"):
            for name in pages:
                run = subprocess.run(["man", "--warnings", "-l", os.path.join(folder, name)],
                                     capture_output=True, text=True, check=False)
                self.assertEqual((run.returncode, run.stderr), (0, ""), name)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_the_units_are_sound_and_safe(self):
        folder = os.path.join(DEPLOY, "systemd")
        run = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=10",
                              os.path.join(folder, "corpusd.service")],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout[-500:] + run.stderr)
        level = float(re.search(r"exposure level for corpusd.service: ([\d.]+)", run.stdout)[1])
        self.assertLessEqual(level, 1.0)
        with open(os.path.join(folder, "corpusd.service"), encoding="utf-8") as file:
            unit = file.read()
        # The kernel's word on who a client is must not be changed.
        self.assertNotIn("PrivateUsers=yes", unit)

    def test_scripts_are_shell(self):
        scripts = [os.path.join(DEPLOY, "debian", name) for name in ("postinst", "prerm", "postrm")]
        scripts.append(os.path.join(DEPLOY, "bundle"))
        for script in scripts:
            self.assertTrue(os.access(script, os.X_OK), script)
            subprocess.run(["bash", "-n", script], check=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
