"""A headless Chromium for tests, over chromedriver's own protocol (W3C WebDriver): no package of
Python is needed. Where there is no chromium or no chromedriver, `installed()` says so."""
import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from harness import PATIENCE

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Control": "\ue009"}


def installed():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    return chromium if chromium and shutil.which("chromedriver") else None


class Browser:
    def __init__(self, width=1280, height=900, dark=False):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.root = "http://127.0.0.1:" + line.rstrip(".\n").split()[-1]
                break
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--hide-scrollbars", "--force-color-profile=srgb"]
        if dark:
            arguments.append("--force-dark-mode")
        options = {"binary": installed(), "args": arguments}
        capabilities = {"goog:chromeOptions": options,
                        "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = self._send("POST", "/session",
                                  {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        self.resize(width, height)

    def close(self):
        try:
            self._call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=20)
            self.driver.stdout.close()

    def _send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120 * PATIENCE) as reply:
                return json.loads(reply.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from None

    def _call(self, method, path, body=None):
        return self._send(method, f"/session/{self.session}{path}", body)

    def resize(self, width, height):
        """Of what the page sees, also where windows have a least width."""
        self._call("POST", "/goog/cdp/execute", {
            "cmd": "Emulation.setDeviceMetricsOverride",
            "params": {"width": width, "height": height, "deviceScaleFactor": 1,
                       "mobile": width < 600}})

    def prefer(self, scheme):
        """"dark" or "light"."""
        self._call("POST", "/goog/cdp/execute", {
            "cmd": "Emulation.setEmulatedMedia",
            "params": {"features": [{"name": "prefers-color-scheme", "value": scheme}]}})

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The body of a function; RETURNS what it does."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? null", selector)

    def find(self, selector):
        return self._call("POST", "/element", {"using": "css selector",
                                               "value": selector})[ELEMENT]

    def click(self, selector):
        for attempt in range(5):
            try:
                return self._call("POST", f"/element/{self.find(selector)}/click", {})
            except AssertionError as error:  # what was found has been replaced since
                if "stale element" not in str(error) or attempt == 4:
                    raise

    def type(self, selector, text):
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys):
        """Keys held together: press("Control", "Enter")."""
        values = [KEYS.get(key, key) for key in keys]
        actions = [{"type": "keyDown", "value": value} for value in values]
        actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard",
                                                     "actions": actions}]})

    def wait(self, script, seconds=30):
        """Until the script's function returns something true. RETURNS it."""
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError("no sign of: " + script)

    def complaints(self):
        """What the page's console has of errors."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})
                if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._call("GET", "/screenshot")))
