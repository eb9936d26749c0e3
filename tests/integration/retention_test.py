"""How long what is kept: pins with owners and quotas, leases, a disk that takes no more."""
import os
import shutil
import signal
import subprocess
import unittest

from harness import IntegrationTest, program, prose

NOBODY = 65534


class RetentionTest(IntegrationTest):
    def ctl_as(self, uid, daemon, *arguments):
        run = subprocess.run([self.shared_ctl, "--socket", daemon.socket, *arguments],
                             stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                             check=False, user=uid)
        return run.returncode, run.stderr.decode()

    @unittest.skipUnless(os.geteuid() == 0, "needs to become another user")
    def test_only_the_owner_and_root_end_a_pin(self):
        daemon = self.daemon(socket_mode="0666")
        for folder in (self.folder, daemon.folder):
            os.chmod(folder, 0o755)
        # The tree may lie where no other user can look.
        self.shared_ctl = shutil.copy(program("corpusctl"), self.folder)
        self.ingest(daemon, "mine", prose(1, 60), "--pin")
        code, text = self.ctl_as(NOBODY, daemon, "unpin", "mine")
        self.assertEqual(code, 6, text)
        self.assertIn("root", text)
        self.assertEqual(self.ctl_as(NOBODY, daemon, "pin", "mine", "--ttl", "1s")[0], 6)
        self.assertEqual(self.ctl_as(NOBODY, daemon, "rm", "mine", "--yes")[0], 6)
        self.assertEqual(self.show(daemon, "mine")["pinned"]["owner"], "root")

        self.ingest(daemon, "theirs", prose(2, 60))
        code, text = self.ctl_as(NOBODY, daemon, "pin", "theirs", "--reason", "the audit")
        self.assertEqual(code, 0, text)
        pinned = self.show(daemon, "theirs")["pinned"]
        self.assertEqual(pinned["reason"], "the audit")
        self.assertNotEqual(pinned["owner"], "root")
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(self.show(daemon, "theirs")["pinned"], pinned)
        holders = daemon.ctl("df", "-o", "json").json()["pins"]["holders"]
        self.assertEqual({h["owner"] for h in holders}, {"root", pinned["owner"]})
        self.assertEqual(daemon.ctl("unpin", "theirs").code, 0)

    @unittest.skipUnless(os.geteuid() == 0, "needs to become another user")
    def test_only_admins_import(self):
        daemon = self.daemon(socket_mode="0666")
        for folder in (self.folder, daemon.folder):
            os.chmod(folder, 0o755)
        self.shared_ctl = shutil.copy(program("corpusctl"), self.folder)
        self.ingest(daemon, "mine", prose(1, 60))
        bundle = os.path.join(self.folder, "bundle")
        self.assertEqual(daemon.ctl("export", "mine", bundle).code, 0)
        os.chmod(bundle, 0o644)
        code, text = self.ctl_as(NOBODY, daemon, "import", bundle, "--name", "theirs")
        self.assertEqual(code, 6, text)
        self.assertIn("only root", text)
        self.assertEqual(daemon.ctl("show", "theirs").code, 3)
        self.assertEqual(daemon.ctl("import", bundle, "--name", "ours").code, 0)

    def test_a_pin_over_the_quota_is_refused_and_says_who_holds_what(self):
        daemon = self.daemon()
        self.ingest(daemon, "first", prose(1, 200), "--pin")
        held = self.show(daemon, "first")["pinned"]["bytes"]
        self.assertEqual(daemon.stop(), 0)
        daemon.options["pins_owner_bytes"] = held + 1
        daemon.start()
        self.ingest(daemon, "second", prose(2, 200))
        run = daemon.ctl("pin", "second")
        self.assertEqual(run.code, 8, run.err)
        self.assertIn("'first'", run.err)
        self.assertIn("--pins-owner-bytes", run.err)
        run = daemon.ctl("ingest", "third", self.write("t.txt", prose(3, 200)), "--pin", "-q")
        self.assertEqual(run.code, 8, run.err)
        self.assertEqual(daemon.ctl("unpin", "first").code, 0)
        self.assertEqual(daemon.ctl("pin", "second").code, 0)

    def test_a_full_disk_makes_the_store_read_only_and_says_so(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))
        before = self.ask(daemon, "a")["answer"]
        self.assertEqual(daemon.stop(), 0)
        daemon.start(env={"CORPUSD_FAULT": "payload.write=enospc"})
        self.assertFalse(daemon.ctl("df", "-o", "json").json()["writes"]["read_only"])
        text = self.write("b.txt", prose(2, 100))
        self.assertEqual(daemon.ctl("ingest", "b", text, "-q").code, 8)
        refused = daemon.ctl("ingest", "c", text, "-q")
        self.assertEqual(refused.code, 8, refused.err)
        self.assertIn("read-only", refused.err)
        self.assertIn("free space", refused.err)
        writes = daemon.ctl("df", "-o", "json").json()["writes"]
        self.assertTrue(writes["read_only"])
        self.assertIn("no space left", writes["reason"])
        doctor = daemon.ctl("doctor")
        self.assertEqual(doctor.code, 1)
        self.assertIn("read-only", doctor.out)
        self.assertIn("store_read_only", daemon.log_text())
        self.assertEqual(self.ask(daemon, "a")["answer"], before)
        self.assertEqual(daemon.ctl("rm", "b", "--yes").code, 0)

    def test_a_prefill_that_a_full_disk_cut_off_is_tried_again_when_there_is_room(self):
        daemon = self.daemon(start=False)
        daemon.start(env={"CORPUSD_FAULT": "payload.write=enospc:times=3"})
        failed = daemon.ctl("ingest", "a", self.write("a.txt", prose(1, 100)), "-q")
        self.assertEqual(failed.code, 8, failed.err)
        self.assertIn("tried again by itself", failed.err)
        self.assertIn("again", daemon.ctl("jobs").out)

        def job():
            return daemon.ctl("jobs", "-o", "json").json()[0]

        self.wait_for("the second try", lambda: job()["state"] == "done")
        self.assertEqual(job()["failed_times"], 1)
        self.assertIsNone(job()["retry_at"])
        self.ask(daemon, "a")

    def test_leases_are_listed_and_end_with_their_connection(self):
        daemon = self.daemon()
        self.ingest(daemon, "a", prose(1, 100))

        def leases():
            return daemon.ctl("df", "-o", "json").json()["leases"]

        client = daemon.popen("ask", "a", "why?", "--max-tokens", "5000")
        self.wait_for("a lease", leases)
        lease = leases()
        if lease:  # the answer may end before it is looked at again
            self.assertIn("connection", lease[0]["owner"])
            self.assertGreater(lease[0]["blocks"], 0)
        client.send_signal(signal.SIGKILL)
        client.communicate()
        self.wait_for("the lease's end", lambda: not leases())
        self.assertEqual(daemon.ctl("evict", "a", "--from", "host").code, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
