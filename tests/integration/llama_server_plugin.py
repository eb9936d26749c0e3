"""A pytest plugin under which llama.cpp's server tests start corpusd: see check_llama_server.

Their ServerProcess starts a corpusd over a tiny random model with as much context as a slot would
have. What a llama-server has from its flags (temperature, seed, n_predict) goes into the requests;
its model's names become the daemon's. Requests and answers go straight to the daemon but for
/completion, llama.cpp's own: it is put into /v1/completions.
"""
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import types
import urllib.request

import pytest

import llama_server_table

sys.modules["wget"] = types.ModuleType("wget")  # to download models with: none are
import openai  # noqa: E402
import utils  # noqa: E402

BUILD = os.environ["CORPUSD_BUILD"]
START_SECONDS = 120
WITHOUT_VERSION = ("/chat/completions", "/models")


def pytest_collection_modifyitems(items):
    for item in items:
        why = llama_server_table.reason(item.name)
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(autouse=True)
def stop_server_after_each_test():
    yield
    for server in set(utils.server_instances):
        server.stop()


def _access_file(folder, key):
    """RETURNS the path of an access table in which the key is a writer's token."""
    salt = secrets.token_bytes(16)
    digest = hashlib.sha256(salt + key.encode()).hexdigest()
    with open(os.path.join(folder, "tokens"), "w", encoding="ascii",
              opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(f"test:writer::{salt.hex()}:{digest}\n")
    path = os.path.join(folder, "access.toml")
    with open(path, "w", encoding="ascii") as file:
        file.write('others = "none"\ntokens = "tokens"\n')
    return path


class CorpusdProcess(utils.ServerProcess):
    def start(self, timeout_seconds=START_SECONDS):
        self.folder = tempfile.mkdtemp(prefix="corpusd-ls-")
        model = os.path.join(self.folder, "tiny.gguf")
        context = (self.n_ctx or 4096) // (self.n_slots or 1)
        subprocess.run([os.path.join(BUILD, "bin", "make_tiny_model"), model, "--context",
                        str(context)], check=True)
        listen = ",".join(f"[{host}]:0" if ":" in host else f"{host}:0"
                          for host in self.server_host.split(","))
        command = [os.path.join(BUILD, "bin", "corpusd"), "--data-dir", self.folder + "/data",
                   "--socket", self.folder + "/s", "--model", model, "--http", listen,
                   "--threads", "2", "--max-queries", str(self.n_slots or 1)]
        if self.api_key:
            command += ["--access", _access_file(self.folder, self.api_key)]
        self.log_file = os.path.join(self.folder, "log")
        with open(self.log_file, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        utils.server_instances.add(self)
        self._wait_until_ready(time.monotonic() + timeout_seconds)

    def _wait_until_ready(self, deadline):
        while time.monotonic() < deadline and self.process.poll() is None:
            with open(self.log_file, encoding="utf-8") as log:
                ready = re.search(r"^corpusd .* ready: .*$", log.read(), re.M)
            if ready:
                self.ports = dict(re.findall(r"http (\S+):(\d+)", ready.group()))
                self.server_port = int(self.ports[self.server_host.split(",")[0]])
                self.model_alias = self._model_id()
                return
            time.sleep(0.02)
        with open(self.log_file, encoding="utf-8") as log:
            raise RuntimeError("corpusd is not ready: " + log.read())

    def _model_id(self):
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        with urllib.request.urlopen(urllib.request.Request(
                self.make_url("/v1/models"), headers=headers)) as reply:
            return json.load(reply)["data"][0]["id"]

    def stop(self):
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_url(self, path, host=None):
        host = host or self.server_host.split(",")[0].strip()
        if path in WITHOUT_VERSION:
            path = "/v1" + path
        return f"http://{host}:{self.ports[host]}{path}"

    def with_flags(self, data):
        """RETURNS the request with what a llama-server's flags would add."""
        defaults = {"temperature": self.temperature, "seed": self.seed,
                    "max_tokens": self.n_predict}
        return {**{k: v for k, v in defaults.items() if v is not None}, **data}

    def make_request(self, method, path, data=None, headers=None, **options):
        own = path in ("/completion", "/completions") and method == "POST"
        if data is not None and (own or "completions" in path):
            data = self.with_flags(data)
        if own:
            path, data = "/v1/completions", to_dialect(data)
        response = super().make_request(method, path, data, headers, **options)
        if own and response.status_code == 200:
            response.body = from_dialect(response.body)
        return response

    def make_stream_request(self, method, path, data=None, headers=None, host=None):
        own = path == "/completion"
        data = self.with_flags(data)
        if own:
            path, data = "/v1/completions", to_dialect(data)
        for event in super().make_stream_request(method, path, data, headers, host):
            yield from_dialect(event) if own else event


def to_dialect(data):
    """RETURNS a request for /completion as one for /v1/completions."""
    data = dict(data)
    if "n_predict" in data:
        data["max_tokens"] = data.pop("n_predict")
    return data


def from_dialect(body):
    choice = body["choices"][0]
    return {"content": choice["text"], "stop": choice["finish_reason"] is not None,
            "truncated": False, "timings": {
                "predicted_n": body.get("usage", {}).get("completion_tokens")}}


def _for_the_model(create):
    def with_our_model(self, **options):
        server = next(iter(utils.server_instances))
        return create(self, **{**options, "model": server.model_alias})
    return with_our_model


def _with_version(make):
    def with_ours(self, **options):
        url = options["base_url"].rstrip("/")
        make(self, **{**options, "base_url": url if url.endswith("/v1") else url + "/v1"})
    return with_ours


utils.ServerProcess = CorpusdProcess
for kind in (openai.resources.chat.Completions, openai.resources.Completions):
    kind.create = _for_the_model(kind.create)
openai.OpenAI.__init__ = _with_version(openai.OpenAI.__init__)
