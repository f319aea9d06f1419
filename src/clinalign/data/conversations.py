"""Chat-shaped rows into questions and answers: LLaVA's turns, TRL's messages, prompts with image placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinalign.data import rows
from clinalign.data.layout import plain_question
from clinalign.errors import RowError

LONG_WORDS = 25
"""An answer of at least so many words is a report: the judge for short answers does not fit it."""
ASKS = ("human", "user")
ANSWERS = ("gpt", "assistant")


def said(value: Any, name: str) -> str:
    """The text of a message, a list of content parts, or a plain text."""
    if isinstance(value, Mapping):
        value = value.get("content", value.get("value", value.get("text")))
    if isinstance(value, list):
        value = " ".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in value)
    return rows.text({name: value}, name)


def turns(messages: Any, name: str) -> list[tuple[str, str]]:
    """(question, answer) of every exchange in a list of messages; a system message is left out.

    Raises `RowError` for what is no conversation.
    """
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise RowError(name, f"bad_{name}", "expected a list of messages")
    out: list[tuple[str, str]] = []
    asked = ""
    for message in messages:
        role = str(message.get("from", message.get("role", ""))).lower()
        if role in ASKS:
            asked = plain_question(said(message, name))
        elif role in ANSWERS:
            out.append((asked, said(message, name)))
        elif role != "system":
            raise RowError(name, f"bad_{name}", f"unknown role '{role}'; use human and gpt, or user and assistant")
    if not out:
        raise RowError(name, f"bad_{name}", "no answer in it")
    return out


def preference(question: str, chosen: str, rejected: str) -> rows.Row:
    """A preference as a row: the chosen answer is the truth, the rejected one travels beside it.

    Raises `RowError` where one of them is empty, or both are the same.
    """
    for name, value in (("question", question), ("chosen", chosen), ("rejected", rejected)):
        if not value.strip():
            raise RowError(name, f"empty_{name}", "fill it or delete the row")
    if chosen.strip() == rejected.strip():
        raise RowError("rejected", "same_as_chosen", "the two sides are the same; there is nothing to prefer")
    return {"question": question, "answer": chosen.strip(), "rejected": rejected.strip()} | task_of(chosen)


def task_of(answer: str) -> rows.Row:
    """{"task": "report"} for a long answer, otherwise nothing: the ingest tells closed from open."""
    return {"task": "report"} if len(answer.split()) >= LONG_WORDS else {}


def images_of(row: rows.Row) -> rows.Row:
    """The row's images under our names. Raises `RowError` for a video."""
    for name in ("images", "image"):
        if row.get(name) not in (None, "", []):
            many = row[name] if isinstance(row[name], list) else [row[name]]
            return {"images": many}
    if row.get("video") or str(row.get("media_path") or "").lower().endswith((".mp4", ".avi", ".mkv", ".webm", ".mov")):
        raise RowError("images", "video", "videos are not read; take frames out of it and name them under images")
    return {"images": [row["media_path"]]} if row.get("media_path") else {}
