"""One endpoint: a request is sent until it is answered, or until trying again is no use."""

from __future__ import annotations

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from clinalign.errors import RowError, UsageError
from clinalign.llm.options import LLMOptions
from clinalign.llm.replies import Entry, entry_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")
RETRIED = (408, 409, 425, 429)
LONGEST_BACKOFF_S = 60.0


class Lost(Exception):
    """One try that brought no response: "unreachable", "timed_out" or "endpoint_failed"."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Endpoint:
    """Safe to use from several threads. `requests` and `retries` count what was sent; `stop` ends all waiting."""

    def __init__(self, options: LLMOptions) -> None:
        self.options, self.key = options, key_of_user(options)
        self.requests = self.retries = 0
        self.stopped: UsageError | None = None
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._reached, self._not_before = False, 0.0
        self._http: Any = None

    def stop(self, error: UsageError | None = None) -> None:
        """No further request is sent; whoever waits wakes up with `error`."""
        self.stopped = self.stopped or error
        self._stop.set()

    def close(self) -> None:
        """Stops and closes the connections."""
        self.stop()
        with self._lock:
            if self._http is not None:
                self._http.close()

    def post(self, body: dict[str, Any]) -> Entry:
        """Sends a request until it is answered. Raises `RowError` when the tries are used up or this request is
        refused, `UsageError` where no other request could do better."""
        reason, detail = "endpoint_failed", ""
        for attempt in range(self.options.retries + 1):
            self._turn(again=attempt > 0)
            wait: float | None = None
            try:
                status, headers, content = self.send("POST", "chat/completions", body)
            except Lost as lost:
                reason, detail = lost.reason, lost.detail
                if reason == "unreachable" and (not self._reached or attempt == self.options.retries):
                    raise self.unusable("cannot be reached", detail) from lost
            else:
                self._reached = True
                entry = entry_of(content) if status == 200 else None
                if entry is not None:
                    return entry
                reason, detail = "endpoint_failed", self.said(status, content)
                self._final(status, content)
                wait = self._retry_after(headers)
            if attempt < self.options.retries:
                self._rest(wait, attempt)
        raise RowError("reply", reason, detail)

    def send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        """One request: status, headers, body. Raises `Lost` when the connection or the time gives out."""
        import httpx2

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.options.base_url.rstrip('/')}/{path}"
        http = self._opened()
        deadline = time.monotonic() + self.options.timeout_s
        try:
            with http.stream(method, url, json=body, headers=headers) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > self.options.max_bytes:
                        raise Lost("endpoint_failed", f"a reply of more than llm.max_bytes ({self.options.max_bytes})")
                    if time.monotonic() > deadline:  # the client's own timeout is for each read
                        raise Lost("timed_out", f"no whole reply within {self.options.timeout_s:g} s")
                return response.status_code, response.headers, bytes(content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise Lost("unreachable", str(error) or "no connection") from error
        except httpx2.TimeoutException as error:
            raise Lost("timed_out", f"no reply within {self.options.timeout_s:g} s") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UsageError(f"llm.base_url: '{self.options.base_url}': {error}; give http://host:port/v1") from error
        except httpx2.HTTPError as error:
            raise Lost("endpoint_failed", f"{type(error).__name__}: {error}") from error

    def unusable(self, what: str, detail: str) -> UsageError:
        """The error for an endpoint that is of no use to any request."""
        return UsageError(
            f"llm: {self.options.base_url} {what} ({detail}); start it or correct llm.base_url; "
            "replies so far are kept, go on with --resume"
        )

    def denied(self, status: int, content: bytes) -> UsageError:
        """The error for a key that is missing or not accepted."""
        name = self.options.api_key_env
        remedy = (
            f"the key in ${name} is not accepted" if name else "name the variable that holds the key in api_key_env"
        )
        return UsageError(f"llm: {self.options.base_url}: {self.said(status, content)}; {remedy}")

    def _opened(self) -> Any:
        with self._lock:
            if self._http is None:
                import httpx2

                many = self.options.concurrency
                self._http = httpx2.Client(
                    timeout=httpx2.Timeout(self.options.timeout_s, pool=None),
                    limits=httpx2.Limits(max_connections=many, max_keepalive_connections=many),
                    verify=self.options.base_url.lower().startswith("https"),  # certificates are slow to load
                    trust_env=urlsplit(self.options.base_url).hostname not in LOOPBACK,  # no proxy to oneself
                )
            return self._http

    def _turn(self, again: bool) -> None:
        """Waits while the endpoint has asked everybody to, then counts the request."""
        while not self._stop.is_set() and (left := self._not_before - time.monotonic()) > 0:
            self._stop.wait(left)
        if self._stop.is_set():
            raise self.stopped or UsageError("llm: stopped; go on with --resume")
        with self._lock:
            self.requests += 1
            self.retries += again

    def _rest(self, wait: float | None, attempt: int) -> None:
        if wait:
            self._not_before = max(self._not_before, time.monotonic() + wait)
        backoff = min(self.options.backoff_s * 2**attempt, LONGEST_BACKOFF_S)
        self._stop.wait((wait or 0.0) + backoff * random.uniform(0.5, 1.0))

    def _final(self, status: int, content: bytes) -> None:
        """Raises where trying again is no use."""
        if status == 200 or status in RETRIED or status >= 500:
            return
        said = self.said(status, content)
        if status in (401, 403):
            raise self.denied(status, content)
        if status < 400 or status in (404, 405):
            raise UsageError(f"llm: {self.options.base_url}: {said}; check base_url (does it end in /v1?) and model")
        if re.search(r"response_format|json_schema|json_object|guided|grammar", said):
            raise UsageError(f"llm: {self.options.base_url}: {said}; set llm.output to json or none")
        raise RowError("reply", "rejected", said)

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """The seconds that the endpoint asks to wait. Raises `UsageError` for more than `max_wait_s`."""
        said = headers.get("retry-after", "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", said):
            wait = float(said)
        else:
            try:
                wait = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
            except ValueError:
                return None
        if wait > self.options.max_wait_s:
            raise UsageError(
                f"llm: {self.options.base_url} asks to wait {wait:.0f} s; come back then with --resume, "
                "or raise llm.max_wait_s"
            )
        return max(0.0, wait)

    def said(self, status: int, content: bytes) -> str:
        """A response in one line, the key masked."""
        text = " ".join(content.decode("utf-8", "replace").split())
        if self.key:
            text = text.replace(self.key, "***")
        return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"


def key_of_user(options: LLMOptions) -> str:
    """The key out of the environment. Raises `UsageError` where the variable is not set."""
    if not options.api_key_env:
        return ""
    key = os.environ.get(options.api_key_env, "").strip()
    if not key:
        raise UsageError(f"llm.api_key_env: ${options.api_key_env} is not set; export the key in it, or leave it empty")
    return key
