"""Chat-shaped rows into questions and answers: LLaVA's turns, TRL's and OpenAI's messages, images in their parts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from clinalign.data import placeholders, rows
from clinalign.errors import RowError

LONG_WORDS = 25
"""An answer of at least so many words is a report: the judge for short answers does not fit it."""
ASKS = ("human", "user")
ANSWERS = ("gpt", "assistant")
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")
VIDEOS = (".mp4", ".avi", ".mkv", ".webm", ".mov")


class Said(NamedTuple):
    """A message: its text, `<image>` where a part of it was an image, and the images that its parts brought."""

    text: str
    images: list[rows.ImageCell]


class Turn(NamedTuple):
    """An exchange; `images` are those of the question's own parts, for which it has placeholders."""

    question: str
    answer: str
    images: list[rows.ImageCell]


def said(value: Any, name: str) -> Said:
    """A message, a list of content parts, or a plain text.

    Raises `RowError` for a part that is neither text nor image.
    """
    images: list[rows.ImageCell] = []
    if isinstance(value, Mapping):
        beside = [value[key] for key in ("images", "image") if value.get(key) not in (None, "", [])]
        for one in beside[0] if beside and isinstance(beside[0], list) else beside[:1]:
            images.append(_image(one, name))
        value = value.get("content", value.get("value", value.get("text")))
    if not isinstance(value, list):
        text = rows.text({name: value}, name)
        return Said(text if placeholders.count(text) else placeholders.IMAGE * len(images) + text, images)
    texts = [placeholders.IMAGE] * len(images)
    for part in value:
        texts.append(_part(part, name, images))
    return Said(" ".join(texts).strip(), images)


def _part(part: Any, name: str, images: list[rows.ImageCell]) -> str:
    """The text of a content part; an image that it brings is added to `images`."""
    if not isinstance(part, Mapping):
        return rows.text({name: part}, name)
    kind = str(part.get("type") or ("text" if "text" in part else "")).lower()
    if kind in TEXT_PARTS:
        return rows.text({name: part.get("text")}, name)
    if kind not in IMAGE_PARTS:
        reason = "video" if kind.startswith("video") else f"bad_{name}"
        raise RowError(name, reason, "a part of a message that is neither text nor image; take it out")
    keys = ("image", "image_url", "url", "path", "source", "bytes", "base64")
    given = next((part[key] for key in keys if part.get(key) not in (None, "")), None)
    if given is not None:
        images.append(_image(given, name))
    return placeholders.IMAGE


def _image(value: Any, name: str) -> rows.ImageCell:
    """An image of a message: a path, a file: or data: address, or an object that holds one of these, or its bytes."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "url", "path", "data", "image") if value.get(key)), None)
        value = f"data:;base64,{value}" if isinstance(value, str) and _looks_packed(value) else value
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value.strip():
        raise RowError(name, "bad_images", f"an image is a path or a data: address, not {rows.described(value)}")
    text = value.strip()
    scheme = text.partition(":")[0].lower() if ":" in text else ""
    if scheme in ("http", "https", "s3", "gs"):
        raise RowError("images", "remote_image", "images are not fetched; download it and give its path")
    if scheme == "file":
        return rows.text({"images": unquote(urlsplit(text).path)}, "images", required=True)
    if scheme == "data":
        try:
            return base64.b64decode(text.partition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RowError("images", "bad_images", "a data: address that is not base64") from error
    return rows.text({"images": text}, "images")


def _looks_packed(value: str) -> bool:
    return len(value) > 256 and not value.startswith("data:") and "." not in value


def turns(messages: Any, name: str) -> list[Turn]:
    """Every exchange in a list of messages; a system message is left out, questions in a row are one.

    Raises `RowError` for what is no conversation, for a question without an answer and an answer without a question.
    """
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise RowError(name, f"bad_{name}", "expected a list of messages")
    out: list[Turn] = []
    asked: list[Said] = []
    for message in messages:
        role = str(message.get("from", message.get("role", ""))).lower()
        if role in ASKS:
            asked.append(said(message, name))
        elif role in ANSWERS:
            if not asked:
                raise RowError(name, "answer_without_question", "an answer follows no question; split the conversation")
            question = "\n".join(one.text for one in asked)
            out.append(Turn(question, answer_of(message, name), [image for one in asked for image in one.images]))
            asked = []
        elif role != "system":
            raise RowError(name, f"bad_{name}", "an unknown role; use human and gpt, or user and assistant")
    if not out:
        raise RowError(name, f"bad_{name}", "no answer in it")
    if asked:
        raise RowError(name, "question_without_answer", "the last question has no answer; take it out")
    return out


def answer_of(value: Any, name: str) -> str:
    """The text of an answer. Raises `RowError` for one with an image in it."""
    answer = said(value, name)
    if answer.images or placeholders.count(answer.text):
        raise RowError(name, "placeholders", "an answer holds an image; only a question may")
    return answer.text


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


def images_of(row: rows.Row, brought: list[rows.ImageCell] | None = None) -> rows.Row:
    """The row's images under our names: its own columns, or those `brought` by the parts of its messages.

    Raises `RowError` for a video, and where both name images that differ.
    """
    own: list[Any] = []
    for name in ("images", "image"):
        if row.get(name) not in (None, "", []):
            own = row[name] if isinstance(row[name], list) else [row[name]]
            break
    if row.get("video") or row.get("videos") or str(row.get("media_path") or "").lower().endswith(VIDEOS):
        raise RowError("images", "video", "videos are not read; take frames out of it and name them under images")
    if not own and row.get("media_path"):
        own = [row["media_path"]]
    if own and brought and own != brought:
        raise RowError("images", "bad_images", "the row's own images and those in its messages differ; keep one list")
    return {"images": own or brought} if own or brought else {}
