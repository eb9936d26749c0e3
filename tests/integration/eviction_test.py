"""A disk tier that is full: what goes, who is told why, how it comes back, also over kills."""
import random
import time
import unittest

from harness import IntegrationTest, PATIENCE, prose


class EvictionTest(IntegrationTest):
    def fill_until_one_is_evicted(self, daemon, prefix="c"):
        """RETURNS the names, in the order of their ingest."""
        names = []
        for i in range(80):
            names.append(f"{prefix}{i}")
            self.ingest(daemon, names[-1], prose(100 + i, 300))
            if self.show(daemon, names[0])["state"] == "evicted":
                return names
        self.fail("nothing was evicted")

    def disk_bytes(self, daemon):
        tiers = daemon.ctl("df", "-o", "json").json()["tiers"]
        return next(t for t in tiers if t["name"] == "disk")["used_bytes"]

    def test_a_full_tier_evicts_instead_of_failing_and_the_corpus_comes_back_when_asked(self):
        daemon = self.daemon(disk_bytes="8MiB")
        self.ingest(daemon, "c0", prose(100, 300))
        expected = self.ask(daemon, "c0")["answer"]
        self.assertEqual(daemon.ctl("rm", "c0", "--yes").code, 0)
        names = self.fill_until_one_is_evicted(daemon)
        self.assertLessEqual(self.disk_bytes(daemon), 8 << 20)
        self.assertEqual(self.show(daemon, names[-1])["state"], "ready")

        evictions = daemon.ctl("df", "-o", "json").json()["evictions"]
        self.assertTrue(evictions["automatic"])
        self.assertGreater(evictions["bytes"], 0)
        self.assertEqual(evictions["refusals"], 0)
        doctor = daemon.ctl("doctor")
        self.assertIn("corpora are evicted, and computed again when asked", doctor.out)
        miss = daemon.ctl("explain-miss", "c0")
        self.assertIn("evicted", miss.out)
        self.assertIn("for corpus 'c", miss.out)

        refused = daemon.ctl("ask", "c0", "why?")
        self.assertEqual(refused.code, 4, refused.err)
        self.assertIn("was evicted", refused.err)
        self.assertEqual(daemon.ctl("wait", "c0", "--for", "ready", "--timeout", "60s").code, 0)
        self.assertEqual(self.ask(daemon, "c0")["answer"], expected)

    def test_pinned_corpora_stay_and_off_refuses(self):
        daemon = self.daemon(disk_bytes="8MiB")
        self.ingest(daemon, "kept", prose(1, 300), "--pin")
        self.fill_until_one_is_evicted(daemon)
        self.assertEqual(self.ask(daemon, "kept")["usage"]["recomputed_tokens"], 0)
        self.assertEqual(daemon.stop(), 0)
        daemon.options["disk_eviction"] = "off"
        daemon.start()
        code = 0
        for i in range(40):
            text = self.write("more.txt", prose(500 + i, 300))
            run = daemon.ctl("ingest", f"more{i}", text, "-q")
            code = run.code
            if code:
                break
        self.assertEqual(code, 8, run.err)
        self.assertIn("--disk-bytes", run.err)

    def test_evict_by_size_and_all_say_what_goes_first(self):
        daemon = self.daemon()
        for i in range(3):
            self.ingest(daemon, f"c{i}", prose(i, 200))
        self.ingest(daemon, "low", prose(9, 200), "--priority", "low")
        plan = daemon.ctl("evict", "--to-free", "1", "--from", "disk", "--dry-run", "-o", "json")
        self.assertEqual(plan.code, 0, plan.err)
        self.assertEqual([s["name"] for s in plan.json()["steps"]], ["low"])
        self.assertIn("priority low", plan.json()["steps"][0]["why"])
        self.assertEqual(self.show(daemon, "low")["state"], "ready")
        done = daemon.ctl("evict", "--all", "--from", "disk", "-o", "json")
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(len(done.json()["steps"]), 4)
        states = {c["name"]: c["state"] for c in daemon.ctl("ls", "-o", "json").json()}
        self.assertEqual(set(states.values()), {"evicted"})
        self.assertEqual(daemon.ctl("evict", "--all", "--from", "disk").code, 9)

    def test_kills_while_a_full_tier_evicts(self):
        chance = random.Random(7)
        daemon = self.daemon(disk_bytes="8MiB")
        self.fill_until_one_is_evicted(daemon)
        for round_ in range(6):
            name = f"k{round_}"
            client = daemon.popen("ingest", name, self.write("k.txt", prose(900 + round_, 300)),
                                  "-q")
            time.sleep(chance.random() * 0.4 * PATIENCE)
            daemon.kill()
            client.communicate()
            daemon.start()
            if daemon.ctl("show", name).code == 0:
                run = daemon.ctl("wait", name, "--for", "ready", "--timeout", "60s")
                self.assertEqual(run.code, 0, run.err)
                self.assertEqual(daemon.ctl("verify", name).code, 0)
            self.assertLessEqual(self.disk_bytes(daemon), 8 << 20)
            for line in daemon.ctl("doctor", "-o", "json").json()["checks"]:
                self.assertNotEqual(line["level"], "error", line)


if __name__ == "__main__":
    unittest.main(verbosity=2)
