"""A device that stops answering: the question gets the error, the daemon goes on with the CPU."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from harness import IntegrationTest, PATIENCE, prose  # noqa: E402

FAULT = "device.launch=eio:after=3000:times=1,device.answer=eio:times=1"


class DeviceLostTest(IntegrationTest):
    def test_the_daemon_goes_on_with_the_cpu(self):
        model = os.path.join(self.folder, "wide.gguf")
        self.make_model(model, **{"context": 8192, "head-dim": 64})
        daemon = self.daemon(start=False, device="cuda:0", device_bytes="64MiB")
        daemon.model = model
        try:
            daemon.start(env={"CORPUSD_FAULT": FAULT})
        except AssertionError:
            if "no such device" in daemon.log_text() or "without CUDA" in daemon.log_text():
                self.skipTest("this host has no CUDA device")
            raise
        process = daemon.process
        self.ingest(daemon, "a", prose(1, 400))
        for asked in range(500):
            run = daemon.ctl("ask", "a", "what is stored?", "--max-tokens", "12")
            if run.code != 0:
                break
        self.assertGreater(asked, 0, "the device answered before it was lost")
        self.assertIn("on the device", run.err)
        self.assertNotEqual(run.code, 0)
        deadline = time.monotonic() + 60 * PATIENCE
        while time.monotonic() < deadline:
            run = daemon.ctl("ask", "a", "what is stored?", "--max-tokens", "12", "-o", "json")
            if run.code == 0:
                break
            time.sleep(0.05)
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(run.json()["usage"]["recomputed_tokens"], 0)
        self.assertIn("device_lost", daemon.log_text())
        self.assertIsNone(process.poll(), "it is the same process")
        self.ingest(daemon, "b", prose(2, 300))
        self.assertEqual(daemon.ctl("verify", "a").code, 0)
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
