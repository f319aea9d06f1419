"""Replies that an endpoint should not give, served on the loopback interface."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fuzzing import cells
from fuzzing.worker import Case

Speak = Callable[[dict[str, Any]], "tuple[int, dict[str, str], Iterator[bytes]]"]


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, headers, parts = self.server.speak(body)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for part in parts:
                self.wfile.write(part)
        except OSError:
            pass  # nobody listens any more

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(speak: Speak) -> Iterator[str]:
    """The address of a server that speaks until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.speak = speak  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def completion(text: Any) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def cases(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """A question to an endpoint that gives one hostile reply; the child serves and asks."""
    for number in range(count):
        name = list(KINDS)[number % len(KINDS)]
        seed = draw.randrange(10**9)
        yield Case("replies", 1, work=lambda name=name, seed=seed: _ask(name, seed), note=f"{number} {name}")


def _ask(name: str, seed: int) -> None:
    from pydantic import BaseModel, ConfigDict

    from clinalign.llm import Client
    from clinalign.llm.messages import user
    from clinalign.llm.options import LLMOptions

    class Verdict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        verdict: str

    draw = random.Random(seed)
    with serve(lambda body: KINDS[name](draw)) as url:
        given = {"base_url": url, "model": "m", "cache": "off", "timeout_s": 5, "retries": 1, "backoff_s": 0.01}
        with Client(LLMOptions.model_validate(given)) as client:
            client.ask([user("Is it there?")], Verdict)


def _once(content: bytes, status: int = 200, **headers: str) -> tuple[int, dict[str, str], Iterator[bytes]]:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, iter([content])


def _endless() -> Iterator[bytes]:
    while True:
        yield b"[" * 65536


def _drip() -> Iterator[bytes]:
    while True:
        yield b" "
        time.sleep(0.2)


def _hostile(draw: random.Random) -> bytes:
    text = draw.choice(
        (cells.raw_json(draw), "{" * 100_000, '{"a":' * 50_000, '{"verdict": "\\ud800"}', cells.text(draw))
    )
    return completion(text if draw.random() < 0.7 else cells.value(draw))


KINDS: dict[str, Callable[[random.Random], tuple[int, dict[str, str], Iterator[bytes]]]] = {
    "text": lambda draw: _once(_hostile(draw)),
    "body": lambda draw: _once(cells.raw_json(draw).encode()),
    "noise": lambda draw: _once(draw.randbytes(300)),
    "shape": lambda draw: _once(json.dumps({"choices": cells.value(draw), "usage": cells.value(draw)}).encode()),
    "usage": lambda draw: _once(completion("{}")[:-1] + b', "usage": {"prompt_tokens": 1e999}}'),
    "endless": lambda draw: (200, {}, _endless()),
    "drip": lambda draw: (200, {}, _drip()),
    "packed": lambda draw: _once(gzip.compress(bytes(500_000_000), 1), content_encoding="gzip"),
    "encoding": lambda draw: _once(b"plain", content_encoding=draw.choice(("gzip", "br", "x"))),
    "length": lambda draw: _once(b"{}", content_length=draw.choice(("999", "-1", "x"))),
    "status": lambda draw: _once(b"\xff" * 50, status=draw.choice((204, 302, 400, 418, 429, 500, 599))),
    "redirect": lambda draw: _once(
        b"", status=302, location=draw.choice(("/v1/chat/completions", "file:///etc/passwd"))
    ),
    "wait": lambda draw: _once(
        b"", status=429, retry_after=draw.choice(("9" * 400, "-1", "nan", "x", "Wed, 99 Foo 2 0"))
    ),
}
