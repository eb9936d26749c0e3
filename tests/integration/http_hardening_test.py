"""Hostile HTTP clients against a real daemon: each is refused or closed in time, and a question
asked meanwhile is answered.
"""
import json
import os
import re
import socket
import time
import unittest

from harness import IntegrationTest, PATIENCE, prose


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * PATIENCE)
        self.socket.connect(path)
        self.bytes = b""

    def send(self, data):
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def reply(self):
        """RETURNS status and body of the next response; (0, b"") at the end."""
        while b"\r\n\r\n" not in self.bytes:
            if not self.fill():
                return 0, b""
        head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        length = int(length.group(1)) if length else 0
        while len(self.bytes) < length and self.fill():
            pass
        body, self.bytes = self.bytes[:length], self.bytes[length:]
        return int(head.split(b" ")[1]), body

    def fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.bytes += data
        return bool(data)

    def ended(self):
        while self.fill():
            pass
        return True

    def post(self, path, body, headers=b""):
        self.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" %
                  (path.encode(), len(body), headers) + body)
        return self.reply()


class HttpHardeningTest(IntegrationTest):
    def setUp(self):
        super().setUp()
        self.clients = []
        self.path = os.path.join(self.folder, "http")
        self.corpusd = self.daemon(http=f"unix:{self.path}", http_header_timeout="1s",
                                   http_body_timeout="1s", http_idle_timeout="2s",
                                   http_max_connections=64)
        self.ingest(self.corpusd, "a", prose(1, 100))

    def tearDown(self):
        try:
            self.close_clients()
            self.assertIsNone(self.corpusd.process.poll(), "the daemon died")
            self.wait_for("a place", lambda: self.client().post("/tokenize", b"{}")[0] == 200)
            self.assert_answers()
            self.close_clients()
        finally:
            super().tearDown()

    def client(self):
        self.clients.append(Client(self.path))
        return self.clients[-1]

    def close_clients(self):
        for client in self.clients:
            client.socket.close()
        self.clients.clear()

    def assert_answers(self):
        body = json.dumps({"cached_content": "corpora/a", "max_tokens": 2,
                           "messages": [{"role": "user", "content": "why?"}]}).encode()
        status, answer = self.client().post("/v1/chat/completions", body)
        self.assertEqual(status, 200, answer)

    def refused(self, data, status=400):
        client = self.client()
        client.send(data)
        self.assertEqual(client.reply()[0], status, data[:200])
        self.assertTrue(client.ended())

    def test_smuggling(self):
        post = b"POST /tokenize HTTP/1.1\r\nHost: x\r\n"
        hidden = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        for head in (b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
                     b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
                     b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
                     b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
                     b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
                     b"Content-Length: 0x10\r\n\r\n", b"Content-Length: 1e1\r\n\r\n",
                     b"\x00: y\r\n\r\n"):
            self.refused(post + head + hidden)
        self.refused(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + hidden)
        self.refused(b"GET http://x HTTP/0.9\r\n\r\n")

    def test_slowloris(self):
        heads = [self.client() for _ in range(40)]
        for client in heads:
            client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        body = self.client()
        body.send(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        idle = self.client()
        begin = time.monotonic()
        self.assert_answers()
        for client in heads[:20]:
            client.send(b"X: y\r\n")
        self.assertEqual([client.reply()[0] for client in heads + [body]], [408] * 41)
        self.assertTrue(idle.ended())
        self.assertLess(time.monotonic() - begin, 15 * PATIENCE)

    def test_connections_have_a_cap(self):
        held = [self.client() for _ in range(64)]
        for client in held:
            client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.reply()[0], 200)
        more = self.client()
        self.assertEqual(more.reply()[0], 503)
        held[0].socket.close()
        self.wait_for("a place", lambda: self.client().post("/tokenize", b"{}")[0] == 200)

    def test_sizes(self):
        self.refused(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40000 + b"\r\n\r\n", 431)
        self.refused(b"GET /" + b"y" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431)
        self.refused(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n",
                     413)
        chunked = self.client()
        chunked.send(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        while chunked.send(chunk) and len(chunked.bytes) == 0:
            chunked.socket.setblocking(False)
            try:
                chunked.bytes += chunked.socket.recv(65536)
            except OSError:
                pass
            chunked.socket.settimeout(20 * PATIENCE)
        self.assertEqual(chunked.reply()[0], 413)

    def test_json_and_text(self):
        for body in (b"[" * 1000000, b'{"a":' * 100000, b'{"messages":[' + b"0," * 300000 + b"0]}",
                     b'{"content":"\xff\xfe"}', b'{"content":"\xed\xa0\x80"}',
                     b'{"content":"\\ud800"}', b'{"content"', b"", b"null", b"\x00",
                     b'{"content":"a"}garbage'):
            for path in ("/tokenize", "/v1/chat/completions", "/v1/corpora"):
                self.assertEqual(self.client().post(path, body)[0], 400, (path, body[:40]))
        for value in ("1e999", "-1e999", "NaN", "123456789012345678901234567890", "[[]]"):
            body = b'{"messages":[{"role":"user","content":"x"}],"max_tokens":%s}' % value.encode()
            self.assertEqual(self.client().post("/v1/chat/completions", body)[0], 400, value)

    def test_paths(self):
        for path in (b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/v1/corpora/%2e%2e",
                     b"/v1/corpora/a%2f..%2fb", b"/v1/corpora/%00", b"/%ff", b"/v1/a%0d%0a"):
            client = self.client()
            client.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.reply()[0], 400, path)
        for path in ("/v1/corpora", "/v1/corpora/x"):
            body = json.dumps({"name": "../x", "contents": "t"}).encode()
            self.assertIn(self.client().post(path, body)[0], (400, 405))

    def test_garbage(self):
        for data in (os.urandom(4096), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 5000, b"GET\r\n\r\n",
                     b"GET /\r\n\r\n", b" / HTTP/1.1\r\n\r\n"):
            client = self.client()
            client.send(data)
            self.assertIn(client.reply()[0], (0, 400, 408, 431), data[:20])
            client.ended()


if __name__ == "__main__":
    unittest.main()
