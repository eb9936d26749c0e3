#!/usr/bin/env python3
"""A Macro-RAG service: folders are prefilled once, then questions come over HTTP.

  macro_rag_service.py --port 8090 handbook=/srv/handbook licences=/usr/share/common-licenses
  curl -N localhost:8090/handbook -d 'Who signs for travel costs?'

At its start it makes the corpora that are missing and updates the others: what is unchanged is not
computed again. The answer streams as plain text; its sources follow after an empty line. All
requests share one connection; a client that goes away cancels its question. For loopback only: it
has no access control.
"""

import argparse
import http.server
import sys

import corpusd


def prepare(client, name, path):
    """Makes the corpus, or brings it up to date."""
    if any(corpus.name == name for corpus in client.corpora()):
        job = client.update(name, path)
    else:
        job = client.ingest(name, path, mode="segmented")
    corpus = client.wait(job, progress=corpusd.ProgressBar())
    print(f"{name}: {corpus.tokens:,} tokens of {path}", file=sys.stderr)


class Handler(http.server.BaseHTTPRequestHandler):
    client: corpusd.Client

    def do_POST(self):
        name = self.path.strip("/")
        length = int(self.headers.get("Content-Length", "0"))
        question = self.rfile.read(length).decode("utf-8", "replace")
        try:
            stream = self.client.stream(name, question, cite=True)
            first = next(stream, "")  # before it, the question may be refused
        except corpusd.NotFoundError as error:
            return self.send_error(404, explain=str(error))
        except corpusd.RetryableError as error:
            return self.send_error(503, explain=str(error))
        except corpusd.CorpusdError as error:
            return self.send_error(400, explain=str(error))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()  # HTTP/1.0: the answer ends with the connection
        with stream:  # a broken pipe cancels the question
            self.write(first)
            for piece in stream:
                self.write(piece)
            self.write("\n\n" + "".join(f"{citation}\n" for citation in stream.answer.citations))

    def write(self, text):
        self.wfile.write(text.encode("utf-8"))
        self.wfile.flush()


def main():
    parser = argparse.ArgumentParser(description="corpora over HTTP")
    parser.add_argument("--socket", help="of the daemon")
    parser.add_argument("--port", type=int, default=8090, help="0: any that is free")
    parser.add_argument("corpora", nargs="+", metavar="NAME=PATH")
    arguments = parser.parse_args()
    try:
        with corpusd.connect(arguments.socket) as client:
            for corpus in arguments.corpora:
                name, _, path = corpus.partition("=")
                prepare(client, name, path)
            Handler.client = client
            server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
            print(f"http://127.0.0.1:{server.server_port}/", flush=True)
            server.serve_forever()
    except corpusd.CorpusdError as error:
        print(f"macro_rag_service: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
