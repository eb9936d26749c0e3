"""The dashboard in a real Chromium, against a real daemon: what it shows is true, what it does is
done, and it can be used with a keyboard, on a phone and in the dark."""
import os
import re
import unittest
import urllib.error
import urllib.request

import browser
from harness import IntegrationTest, PATIENCE, prose

SHOTS = os.environ.get("CORPUSD_SCREENSHOTS")  # a folder to look at afterwards

# Contrast of every text with what is behind it, by WCAG 2: pairs below 4.5 (3 for large text).
CONTRAST = """
const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number);
  return [m[0], m[1], m[2], m[3] ?? 1]; };
const light = ([r, g, b]) => { const f = (v) => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.5) return c; }
  return [255, 255, 255, 1]; };
const low = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || e.disabled || !e.getClientRects().length || e.closest(".skip")) continue;
  const s = getComputedStyle(e);
  const [a, b] = [light(parse(s.color)), light(ground(e))].sort((x, y) => y - x);
  const large = parseFloat(s.fontSize) >= 24;
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < (large ? 3 : 4.5)) low.push(`${e.tagName} ${e.innerText}: ${ratio.toFixed(2)}`);
}
return low;
"""
# Things that take a click and have no name for those who cannot see them.
NAMELESS = """
return [...document.querySelectorAll("button, input, select, textarea, progress, [role=img]")]
  .filter((e) => e.getClientRects().length)
  .filter((e) => !(e.getAttribute("aria-label") || e.innerText || e.labels?.length ||
                   e.getAttribute("aria-labelledby")))
  .map((e) => e.outerHTML);
"""


class DashboardFixture(IntegrationTest):
    """Two corpora, a daemon and a browser that has not opened its page."""

    def setUp(self):
        super().setUp()
        self.make_model(self.model, context=self.CONTEXT_TOKENS)
        self.running = self.daemon(http="127.0.0.1:0", threads=1)
        self.url = re.search(r"http (127\.0\.0\.1:\d+)", self.running.log_text())[1]
        self.url = f"http://{self.url}/"
        self.ingest(self.running, "alpha", prose(1, 600), "--mode", "segmented")
        self.ingest(self.running, "beta", prose(2, 300), "--mode", "segmented")
        self.page = browser.Browser()
        self.addCleanup(self.page.close)

    def shoot(self, name):
        if SHOTS:
            self.page.screenshot(os.path.join(SHOTS, name + ".png"))

    def load(self):
        self.page.open(self.url)
        self.page.wait("return document.querySelectorAll('#corpora tr').length === 2")

    def ask_by_keyboard(self):
        self.page.run("document.querySelector('#question').focus()")
        self.page.type("#question", "what is stored?")
        self.page.press("Control", "Enter")

    def act(self, key, **fields):
        """Clicks a corpus's button and confirms."""
        self.page.click(f'[data-key="{key}"]')
        self.page.wait("return document.querySelector('#confirm').open")
        for field, value in fields.items():
            self.page.run("document.getElementById(arguments[0]).value = arguments[1]",
                          field.replace("_", "-"), value)
        self.page.click("#confirm-yes")


@unittest.skipUnless(browser.installed(), "there is no chromium with its driver")
class DashboardTest(DashboardFixture):
    CONTEXT_TOKENS = 8192

    def test_it_shows_what_corpusctl_shows(self):
        self.load()
        rows = self.page.run("return [...document.querySelectorAll('#corpora tr')].map("
                             "(r) => [...r.children].map((c) => c.innerText))")
        for row, name in zip(rows, ("alpha", "beta")):
            told = self.show(self.running, name)
            self.assertEqual(row[0], name)
            self.assertEqual(row[1], "ready")
            self.assertEqual(row[2], f"{told['tokens']:,}")
        self.page.wait("return document.querySelectorAll('#tiers > div').length === 2")
        self.page.wait("return document.querySelector('#health').className.includes('health')"
                       " && document.querySelector('#health').innerText !== 'connecting'")
        self.assertIn("tiny", self.page.text("#model").lower())
        self.shoot("light")
        self.assertEqual(self.page.run(CONTRAST), [])
        self.assertEqual(self.page.run(NAMELESS), [])
        self.page.prefer("dark")
        self.shoot("dark")
        self.assertEqual(self.page.run(CONTRAST), [])
        self.assertEqual(self.page.complaints(), [])

    def test_a_question_by_keyboard_streams_with_citations(self):
        self.load()
        self.ask_by_keyboard()
        self.page.wait("return document.querySelector('#usage').innerText.includes('answered')")
        told = self.ask(self.running, "alpha")
        self.assertTrue(self.page.run("return document.querySelector('#answer').textContent")
                        .startswith(told["answer"].rstrip("\ufffd")[:8]))
        cited = self.page.run("return [...document.querySelectorAll('#citations li')].map("
                              "(e) => e.innerText)")
        self.assertGreater(len(cited), 0)
        self.assertIn("alpha.txt:", cited[0])
        self.page.wait("return document.querySelector('#charts .value').innerText !== '-'")
        self.shoot("answer")

    def test_a_stop_that_comes_after_the_answer_s_end_does_not_claim_to_have_stopped_it(self):
        self.load()
        # The answer's last text has arrived, its citations have not, nor ever will.
        self.page.run("""
            const fetched = window.fetch;
            window.fetch = (path, options) => {
              if (path !== "/v1/chat/completions") return fetched(path, options);
              const chunk = JSON.stringify({ choices: [
                { delta: { content: "All of it" }, finish_reason: "length" }] });
              return Promise.resolve(new Response(new ReadableStream({ start(stream) {
                stream.enqueue(new TextEncoder().encode(`data: ${chunk}\n\n`));
                options.signal.addEventListener("abort",
                                                () => stream.error(options.signal.reason));
              } })));
            };""")
        self.ask_by_keyboard()
        self.page.wait("return document.querySelector('#answer').innerText === 'All of it'")
        self.page.press("Escape")
        self.page.wait("return !document.querySelector('#send').disabled")
        self.assertEqual(self.page.text("#answer-end"), "Cut at the most tokens asked for.")

    def test_pin_evict_and_warm_ask_first_and_then_do_it(self):
        self.load()
        self.page.click('[data-key="Pin alpha"]')
        self.page.wait("return document.querySelector('#confirm').open")
        self.shoot("confirm")
        self.page.press("Escape")
        self.page.wait("return !document.querySelector('#confirm').open")
        self.assertIsNone(self.show(self.running, "alpha")["pinned"])
        self.act("Pin alpha", pin_tier="disk")
        self.wait_for("the pin", lambda: self.show(self.running, "alpha")["pinned"])
        self.page.wait("return document.querySelector('[data-key=\"Unpin alpha\"]')")
        self.act("Evict beta", evict_tier="host")
        self.wait_for("the eviction",
                      lambda: self.show(self.running, "beta")["bytes"]["host"] == 0)
        self.act("Warm beta")
        self.wait_for("the warming",
                      lambda: self.show(self.running, "beta")["bytes"]["host"] > 0)
        # What is refused is said.
        self.act("Evict alpha", evict_tier="disk")
        self.page.wait("return document.querySelector('#said').innerText.includes('pinned')")
        self.act("Unpin alpha")
        self.wait_for("its end", lambda: self.show(self.running, "alpha")["pinned"] is None)

    def test_a_prefill_is_watched_live_and_cancelled(self):
        self.load()
        self.running.ctl("ingest", "long", self.write("l.txt", prose(3, 400000)), "--detach")
        self.page.wait("return document.querySelector('#jobs progress')?.value > 0", seconds=60)
        self.shoot("job")
        self.page.click("#jobs button")
        self.page.wait("return document.querySelector('#confirm').open")
        self.page.click("#confirm-yes")
        self.page.wait("return document.querySelectorAll('#jobs li').length === 0", seconds=60)
        self.assertEqual(self.show(self.running, "long")["state"], "cancelled")

    def test_it_fits_a_phone_and_a_wide_screen(self):
        for width, height in ((320, 640), (390, 844), (1920, 1080)):
            self.page.resize(width, height)
            self.load()
            self.assertEqual(self.page.run("return document.documentElement.scrollWidth"), width)
            self.shoot(f"width-{width}")
        self.page.prefer("dark")
        self.page.resize(390, 844)
        self.shoot("phone-dark")

    def test_names_are_text_and_nothing_comes_from_elsewhere(self):
        name = "x-img-onerror"
        path = self.write("evil.txt", "<img src=x onerror=\"document.title='owned'\"> " * 30)
        self.running.ctl("ingest", name, path, "--mode", "segmented", "-q")
        self.page.open(self.url)
        self.page.wait("return document.querySelectorAll('#corpora tr').length === 3")
        self.assertEqual(self.page.run("return document.title"), "corpusd")
        with urllib.request.urlopen(self.url, timeout=20 * PATIENCE) as reply:
            policy = reply.headers["Content-Security-Policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertEqual(reply.headers["X-Content-Type-Options"], "nosniff")
        hosts = self.page.run("return performance.getEntriesByType('resource').map("
                              "(e) => new URL(e.name).host)")
        self.assertEqual(set(hosts), {self.url.split("/")[2]})
        with urllib.request.urlopen(self.url + "metrics", timeout=20 * PATIENCE) as reply:
            self.assertTrue(reply.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
            text = reply.read().decode()
        self.assertRegex(text, r"(?m)^corpusd_corpora\{state=\"ready\"\} 3$")
        self.assertEqual(self.page.complaints(), [])


@unittest.skipUnless(browser.installed(), "there is no chromium with its driver")
class StopTest(DashboardFixture):
    # Room for an answer that takes many minutes: no browser is too slow to stop it.
    CONTEXT_TOKENS = 1 << 20

    def test_escape_stops_an_answer_at_the_daemon_too(self):
        self.load()
        self.page.run("const tokens = document.querySelector('#tokens');"
                      "tokens.max = tokens.value = 1000000;")
        self.ask_by_keyboard()
        self.page.wait("return document.querySelector('#answer').innerText.length > 20")
        self.assertNotEqual(self.running.ctl("df", "-o", "json").json()["leases"], [])
        self.page.press("Escape")
        self.page.wait("return document.querySelector('#answer-end').innerText === 'Stopped.'")
        self.wait_for("the question's end",
                      lambda: self.running.ctl("df", "-o", "json").json()["leases"] == [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
