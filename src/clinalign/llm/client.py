"""Questions to a model behind an endpoint, each asked once: cache, replay, validation, counts.

The cache knows a request by a hash of its body (model, messages, sampling, schema), not by the endpoint's address, so
that a server may move; two models that are served under one name need two cache folders.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from clinalign.errors import RowError, UsageError, nearest
from clinalign.llm.endpoint import Endpoint, Lost
from clinalign.llm.messages import Message, in_words, parse_reply, user
from clinalign.llm.options import LLMOptions, replies_folder
from clinalign.llm.replies import Entry, Replies, write
from clinalign.storage import canonical, key_of

M = TypeVar("M", bound=BaseModel)
Item = TypeVar("Item")
T = TypeVar("T")


class Client:
    """Asks one endpoint. Safe to use from several threads; use it in a `with` block.

    `replay`: recorded replies (a file written by `record`, or a cache folder); they are served and nothing is asked.
    Raises `UsageError` where the endpoint cannot be used at all: no address, no key, unreachable, unknown model.
    """

    def __init__(self, options: LLMOptions, *, replay: str | Path = "") -> None:
        if not options.model or not (options.base_url or replay):
            missing = "base_url" if options.model else "model"
            raise UsageError(f"llm.{missing} is empty; set the endpoint's address and the model's name")
        self.options = options
        self.endpoint = None if replay else Endpoint(options)
        self.replies = Replies.recorded_in(Path(replay)) if replay else Replies(replies_folder(options.cache))
        self._lock = threading.Lock()
        self._alone: dict[str, threading.Lock] = {}
        self._used: dict[str, Entry] = {}
        self._fresh: set[str] = set()
        self._streak = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Closes the connections. Requests that failed are remembered only where the work got to its end."""
        if self.endpoint is not None:
            self.endpoint.close()
            for key in self._fresh if kind is None else ():
                if "error" in self._used[key]:
                    self.replies.put(key, self._used[key])

    def ask(self, messages: Sequence[Message], shape: type[M]) -> M:
        """The reply as an object of `shape`, whose JSON schema constrains the endpoint (give it extra="forbid").

        A reply that cannot be read is asked for again, its fault named, up to `attempts` times. Raises
        `RowError("reply", reason)` with a reason of `REASONS`.
        """
        said = list(messages)
        for attempt in range(1, self.options.attempts + 1):
            entry = self._entry(self._body(said, shape))
            text = entry["text"]
            try:
                return parse_reply(text, shape)
            except RowError as error:
                if error.reason == "unparsable" and entry["finish_reason"] == "length":
                    raise _cut_off() from error
                if error.reason != "unparsable" or attempt == self.options.attempts:
                    raise
                again = f"That cannot be read ({error.detail}). Give the JSON object again and nothing else."
                said = [*messages, {"role": "assistant", "content": text}, user(again)]
        raise AssertionError("attempts is at least 1")

    def say(self, messages: Sequence[Message]) -> str:
        """The reply as it is. Raises `RowError("reply", reason)`."""
        entry = self._entry(self._body(messages, None))
        if entry["finish_reason"] == "length":
            raise _cut_off()
        return entry["text"]

    def each(self, function: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T | RowError]:
        """`function` of every item, `concurrency` at a time, in the order of the items.

        A `RowError` stands where a result would have been; any other error ends the iteration.
        """
        todo: SimpleQueue[tuple[Future[T | RowError], Item] | None] = SimpleQueue()
        many = self.options.concurrency
        for _ in range(many):  # daemons: whoever waits for a reply does not keep an interrupted program alive
            threading.Thread(target=_work, args=(function, todo), daemon=True, name="llm").start()
        waiting: deque[Future[T | RowError]] = deque()
        try:
            for item in items:
                future: Future[T | RowError] = Future()
                waiting.append(future)
                todo.put((future, item))
                if len(waiting) >= 4 * many:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            if self.endpoint is not None:
                self.endpoint.stop()
            raise
        finally:
            for future in waiting:
                future.cancel()
            for _ in range(many):
                todo.put(None)

    def usage(self) -> dict[str, int | float]:
        """What was sent and used. `cost` is that of all replies used, `spent` without those that were there already."""
        with self._lock:
            used = dict(self._used)
        fresh = [entry for key, entry in used.items() if key in self._fresh]
        return {
            "requests": self.endpoint.requests if self.endpoint else 0,
            "retries": self.endpoint.retries if self.endpoint else 0,
            "replies": sum("error" not in entry for entry in used.values()),
            "cached": len(used) - len(fresh),
            "failed": sum("error" in entry for entry in used.values()),
            "prompt_tokens": sum(entry.get("prompt_tokens", 0) for entry in used.values()),
            "completion_tokens": sum(entry.get("completion_tokens", 0) for entry in used.values()),
            "cost": self._price(used.values()),
            "spent": self._price(fresh),
        }

    def record(self, path: Path) -> None:
        """Writes every reply that was used as JSON lines, for `replay`."""
        write(path, "".join(canonical({"request": key, **self._used[key]}) + "\n" for key in sorted(self._used)))

    def check(self) -> str:
        """One line on the endpoint. Raises `UsageError` when it cannot be reached, is not ready or lacks the model."""
        if self.endpoint is None:
            return "recorded replies"
        try:
            status, _, content = self.endpoint.send("GET", "models", None)
        except Lost as lost:
            raise self.endpoint.unusable("cannot be reached", lost.detail) from lost
        if status in (401, 403):
            raise self.endpoint.denied(status, content)
        if status >= 500:  # a server that is loading its weights, for one
            raise self.endpoint.unusable("is not ready", self.endpoint.said(status, content))
        names = _names(content)
        if names and self.options.model not in names:
            hint = nearest(self.options.model, names) or f"; it serves {', '.join(names[:5])}"
            raise UsageError(f"llm.model: {self.options.base_url} serves no '{self.options.model}'{hint}")
        return f"{self.options.base_url} serves {self.options.model}" if names else f"{self.options.base_url} answers"

    def _body(self, messages: Sequence[Message], shape: type[BaseModel] | None) -> dict[str, Any]:
        given = {"temperature": self.options.temperature, "max_tokens": self.options.max_tokens}
        body: dict[str, Any] = {"model": self.options.model, "messages": list(messages)}
        body |= {name: value for name, value in given.items() if value is not None}
        if shape is not None and self.options.output == "schema":
            form = {"name": shape.__name__.lower(), "strict": True, "schema": shape.model_json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif shape is not None:
            body["messages"] = in_words(messages, shape)
            if self.options.output == "json":
                body["response_format"] = {"type": "json_object"}
        return body | self.options.extra

    def _entry(self, body: dict[str, Any]) -> Entry:
        """The reply to a request, out of the cache where it is there."""
        key = key_of(body)
        with self._lock:
            alone = self._alone.setdefault(key, threading.Lock())
        with alone:  # the same request from two threads is asked once
            entry = self._used.get(key) or self._kept(key) or self._asked(key, body)
            self._used[key] = entry
        if "error" in entry:
            raise RowError("reply", entry["error"], entry["detail"])
        if entry["refusal"] or entry["finish_reason"] == "content_filter":
            raise RowError("reply", "refused", entry["refusal"][:120] or "stopped by the endpoint's content filter")
        return entry

    def _kept(self, key: str) -> Entry | None:
        entry = self.replies.get(key)
        again = self.options.retry_failed and self.endpoint is not None
        return None if entry is not None and "error" in entry and again else entry

    def _asked(self, key: str, body: dict[str, Any]) -> Entry:
        if self.endpoint is None:
            raise RowError("reply", "not_recorded", "the recorded replies have none to this request")
        try:
            entry = self.endpoint.post(body)
        except UsageError as error:
            self.endpoint.stop(error)
            raise
        except RowError as error:
            entry = {"error": error.reason, "detail": error.detail}
            with self._lock:
                self._streak += 1
                streak = self._streak
            if streak > 10 + 2 * self.options.concurrency:
                self.endpoint.stop(self.endpoint.unusable(f"failed {streak} requests in a row", error.detail))
        else:
            self._streak = 0
            self.replies.put(key, entry)
        with self._lock:
            self._fresh.add(key)
        return entry

    def _price(self, entries: Iterable[Entry]) -> float:
        pairs = [(e.get("prompt_tokens", 0), e.get("completion_tokens", 0)) for e in entries]
        return sum(a * self.options.price_in + b * self.options.price_out for a, b in pairs) / 1e6


def _work(function: Callable[[Item], T], todo: SimpleQueue[tuple[Future[T | RowError], Item] | None]) -> None:
    """Takes items until there are no more."""
    while (task := todo.get()) is not None:
        future, item = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(item))
        except RowError as error:
            future.set_result(error)
        except BaseException as error:
            future.set_exception(error)


def _cut_off() -> RowError:
    return RowError("reply", "unparsable", "cut off at the length limit; raise llm.max_tokens")


def _names(content: bytes) -> list[str]:
    try:
        return [str(model["id"]) for model in json.loads(content)["data"]]
    except (ValueError, KeyError, TypeError):
        return []
