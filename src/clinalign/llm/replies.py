"""Replies on disk, one small file a request, so that no request is paid for twice.

A reply is written to a temporary name and renamed: it is whole or absent, whoever is killed, and several runs may share
the folder. Files hold the reply alone: no key, no image, no question.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.storage import canonical, parse_json

Entry = dict[str, Any]
"""{"text", "finish_reason", "refusal", "prompt_tokens", "completion_tokens"}, or {"error", "detail"} of a failure."""

REASONS = {
    "timed_out": "the endpoint gave no reply in time, however often it was asked",
    "endpoint_failed": "the endpoint failed or cut the connection, however often it was asked",
    "rejected": "the endpoint refuses this request",
    "refused": "the model declines to answer",
    "unparsable": "the model's reply cannot be read",
    "not_recorded": "there is no recorded reply to this request",
}
"""Reason code of a request that brought no usable reply -> what it means."""


class Replies:
    """Replies by request, in a folder (None: nowhere) or out of one recorded file."""

    def __init__(self, folder: Path | None, recorded: Mapping[str, Entry] | None = None) -> None:
        self.folder, self.recorded = folder, recorded

    @classmethod
    def recorded_in(cls, path: Path) -> Replies:
        """A file of `Client.record`, or a cache folder. Raises `UsageError` where it is neither."""
        if path.is_dir():
            return cls(path / "replies" if (path / "replies").is_dir() else path)
        if not path.is_file():
            raise UsageError(
                f"{path}: no such file of recorded replies; run with editor llm, which writes replies.jsonl"
            )
        entries: dict[str, Entry] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line:
                continue
            try:
                row = json.loads(line)
                entries[row.pop("request")] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{path}:{number}: not a recorded reply ({error}); record the file again") from error
        return cls(None, entries)

    def get(self, key: str) -> Entry | None:
        """The reply, or None; a file that cannot be read counts as absent and is written anew."""
        if self.recorded is not None:
            return self.recorded.get(key)
        if self.folder is None:
            return None
        try:
            entry = json.loads(self._file(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return entry if isinstance(entry, dict) and ("error" in entry or "text" in entry) else None

    def put(self, key: str, entry: Entry) -> None:
        """Keeps a reply, readable by its owner alone."""
        if self.folder is not None:
            write(self._file(key), canonical(entry) + "\n")

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def entry_of(content: bytes) -> Entry | None:
    """What a chat completion says; None where the body is no chat completion."""
    try:
        found = parse_json(content.decode("utf-8-sig"))
        choice = found["choices"][0]
        message = choice["message"]
        usage = found.get("usage") or {}
        text = message.get("content") or ""
        if isinstance(text, list):
            text = "".join(part.get("text", "") for part in text)
        return {
            "text": str(text).encode("utf-8", "replace").decode(),
            "finish_reason": str(choice.get("finish_reason") or ""),
            "refusal": str(message.get("refusal") or ""),
            "prompt_tokens": int(usage.get("prompt_tokens") or 0),
            "completion_tokens": int(usage.get("completion_tokens") or 0),
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
        return None
