"""What the tests of HTTP clients from PyPI share: a daemon that speaks HTTP, a corpus to ask."""
import json
import os
import re
import urllib.request

from harness import IntegrationTest, prose

QUESTION = "what is stored?"


class HttpClientTest(IntegrationTest):
    """self.url: the API over TCP; self.path: its Unix socket; self.model_id: the
    model's own."""

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "http")
        self.corpusd = self.daemon(http=f"unix:{self.path},127.0.0.1:0")
        port = re.search(r"http 127\.0\.0\.1:(\d+)", self.corpusd.log_text()).group(1)
        self.url = f"http://127.0.0.1:{port}/v1"
        with urllib.request.urlopen(self.url + "/models") as reply:
            self.model_id = json.load(reply)["data"][0]["id"]
        self.ingest(self.corpusd, "docs", prose(1, 400))

    def expected(self, question=QUESTION, *options):
        """RETURNS what corpusctl gets: the answer object."""
        return self.ask(self.corpusd, "docs", question, *options)
