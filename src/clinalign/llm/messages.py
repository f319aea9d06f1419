"""Turns of a conversation, and replies into objects of a shape."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clinalign.errors import RowError
from clinalign.storage import damage
from clinalign.storage.text import DECODER

M = TypeVar("M", bound=BaseModel)
Message = dict[str, Any]

LONGEST_REPLY = 1 << 20
MOST_TRIES = 1000
_REFUSAL = re.compile(
    r"\b(?:I(?:'|\u2019)?m sorry|I am sorry|I (?:can(?:not|'t|\u2019t)|am unable|am not able|won(?:'|\u2019)t)|"
    r"I(?:'|\u2019)m (?:unable|not able)|as an AI)\b",
    re.I,
)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.S)


def system(text: str) -> Message:
    """Instructions."""
    return {"role": "system", "content": text}


def user(text: str, images: Sequence[bytes] = ()) -> Message:
    """A turn of the user's; `images` are PNG or JPEG bytes and come first."""
    if not images:
        return {"role": "user", "content": text}
    parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def in_words(messages: Sequence[Message], shape: type[BaseModel]) -> list[Message]:
    """The messages with the JSON schema asked for in words, for whoever cannot be held to it otherwise."""
    schema = json.dumps(shape.model_json_schema(), ensure_ascii=False)
    asked = f"Reply with one JSON object and nothing else. Its JSON schema: {schema}"
    first, *rest = messages
    if first["role"] == "system":
        return [system(f"{first['content']}\n\n{asked}"), *rest]
    return [system(asked), *messages]


def parse_reply(text: str, shape: type[M]) -> M:
    """The first JSON object in a reply that has the shape; thoughts, fences and words around it are passed over.

    Raises `RowError("reply", "refused" | "unparsable")`.
    """
    said = _THOUGHT.sub("", text)
    problem = "no JSON object in it"
    for found in _objects(said):
        try:
            return shape.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}"
    if "{" not in said and _REFUSAL.search(said):
        raise RowError("reply", "refused", " ".join(said.split())[:120])
    raise RowError("reply", "unparsable", problem)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in a text; one with half a character in it is none. A text of brackets alone is
    given up after `MOST_TRIES`."""
    text = text[:LONGEST_REPLY]
    at = text.find("{")
    for _ in range(MOST_TRIES):
        if at < 0:
            return
        try:
            found, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(found, dict) and not damage(json.dumps(found, ensure_ascii=False)):
                yield found
        at = text.find("{", end)


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
