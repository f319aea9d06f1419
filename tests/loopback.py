"""A chat-completions server on the loopback interface that answers as told and fails as told. No network."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Speak = Callable[[Body], str]
"""The text of the reply to a request."""
Fail = Callable[[Body, int], str]
"""The fault of the n-th try (from 0) of a request, or "" for none: a key of `FAULTS`."""

SLOW_S = 4.0


@dataclass
class Loopback:
    """`log`: every request's body in order of arrival; `faults`: how often each fault was injected."""

    url: str = ""
    log: list[Body] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    loading: bool = False
    busiest: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(text: str, *, finish_reason: str = "stop", refusal: str | None = None) -> bytes:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: Any

    def do_GET(self) -> None:
        if self.server.state.loading:
            return self.say(503, b'{"error": "Loading model"}')
        self.say(200, json.dumps({"data": [{"id": "m"}, {"id": "other"}]}).encode())

    def do_POST(self) -> None:
        state: Loopback = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = json.dumps(body, sort_keys=True)
        with state.lock:
            tries = state.tries[name]
            state.tries[name] += 1
            state.log.append(body)
            state.headers.append(dict(self.headers))
            state.under_way += 1
            state.busiest = max(state.busiest, state.under_way)
        fault = self.server.fail(body, tries)
        with state.lock:
            state.faults[fault] += bool(fault)
        try:
            FAULTS[fault](self, lambda: self.server.speak(body))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has stopped waiting
        finally:
            with state.lock:
                state.under_way -= 1

    def say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def slow(self, text: str) -> None:
        time.sleep(SLOW_S)
        self.say(200, completion(text))

    def trickle(self, text: str) -> None:
        """A byte now and then, so that no single read times out."""
        content = completion(text)
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        for n in range(len(content)):
            self.wfile.write(content[n : n + 1])
            self.wfile.flush()
            time.sleep(0.08)

    def cut(self, text: str) -> None:
        """Half a reply, then the line goes dead."""
        content = completion(text)
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


FAULTS: dict[str, Callable[[_Handler, Callable[[], str]], None]] = {
    "": lambda h, speak: h.say(200, completion(speak())),
    "429": lambda h, speak: h.say(429, b'{"error": "slow down"}', Retry_After="0"),
    "429 without a time": lambda h, speak: h.say(429),
    "500": lambda h, speak: h.say(500, b"oops"),
    "503": lambda h, speak: h.say(503, Retry_After="0.01"),
    "slow": lambda h, speak: h.slow(speak()),
    "trickle": lambda h, speak: h.trickle(speak()),
    "cut": lambda h, speak: h.cut(speak()),
    "not http json": lambda h, speak: h.say(200, b"<html>proxy</html>"),
    "no choices": lambda h, speak: h.say(200, b'{"error": {"message": "overloaded"}}'),
    "malformed": lambda h, speak: h.say(200, completion(speak()[:-2])),
    "outside schema": lambda h, speak: h.say(200, completion(json.dumps({"thoughts": "well", "reply": speak()}))),
    "prose": lambda h, speak: h.say(200, completion("Sure! Here is what you asked for.")),
    "refusal": lambda h, speak: h.say(200, completion("", refusal="I cannot help with medical images.")),
    "refusal in words": lambda h, speak: h.say(200, completion("I'm sorry, but I can't help with that.")),
    "filtered": lambda h, speak: h.say(200, completion("", finish_reason="content_filter")),
    "cut off": lambda h, speak: h.say(200, completion(speak()[:-2], finish_reason="length")),
    "400": lambda h, speak: h.say(400, b'{"error": "this prompt is too long"}'),
    "no schema": lambda h, speak: h.say(400, b'{"error": "response_format is not supported"}'),
    "401": lambda h, speak: h.say(401, b'{"error": "bad key sk-secret"}'),
    "404": lambda h, speak: h.say(404, b'{"error": "no such model"}'),
    "tomorrow": lambda h, speak: h.say(429, Retry_After="86400"),
}


@contextmanager
def serve(speak: Speak, fail: Fail = lambda body, tries: "") -> Iterator[Loopback]:
    """Serves until the block ends."""
    state = Loopback()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.state, server.speak, server.fail = state, speak, fail  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
