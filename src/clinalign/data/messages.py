"""Chat-shaped rows into questions and answers: LLaVA's turns, TRL's and OpenAI's messages, images in their parts; and
where a text says that an image stands: <image> and what other models and data sets write for it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from clinalign.data import cells
from clinalign.errors import RowError

LONG_WORDS = 25
"""An answer of at least so many words is a report: the judge for short answers does not fit it."""
ASKS = ("human", "user")
ANSWERS = ("gpt", "assistant")
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")
VIDEOS = (".mp4", ".avi", ".mkv", ".webm", ".mov")


class Said(NamedTuple):
    """A message: its text, `<image>` where a part of it was an image, and the images that its parts brought, as they
    are written (`images_of` makes paths and bytes of them)."""

    text: str
    images: list[Any]


class Turn(NamedTuple):
    """An exchange; `images` are those of the question's own parts, for which it has placeholders."""

    question: str
    answer: str
    images: list[Any]


def said(value: Any, name: str) -> Said:
    """A message, a list of content parts, or a plain text.

    Raises `RowError` for a part that is neither text nor image.
    """
    images: list[Any] = []
    if isinstance(value, Mapping):
        beside = [value[key] for key in ("images", "image") if value.get(key) not in (None, "", [])]
        images += beside[0] if beside and isinstance(beside[0], list) else beside[:1]
        value = value.get("content", value.get("value", value.get("text")))
    if not isinstance(value, list):
        text = cells.text({name: value}, name)
        return Said(text if places(text) else IMAGE * len(images) + text, images)
    texts = [IMAGE] * len(images)
    for part in value:
        texts.append(_part(part, name, images))
    return Said(" ".join(texts).strip(), images)


def _part(part: Any, name: str, images: list[Any]) -> str:
    """The text of a content part; an image that it brings is added to `images`."""
    if not isinstance(part, Mapping):
        return cells.text({name: part}, name)
    kind = str(part.get("type") or ("text" if "text" in part else "")).lower()
    if kind in TEXT_PARTS:
        return cells.text({name: part.get("text")}, name)
    if kind not in IMAGE_PARTS:
        reason = "video" if kind.startswith("video") else f"bad_{name}"
        raise RowError(name, reason, "a part of a message that is neither text nor image; take it out")
    keys = ("image", "image_url", "url", "path", "source", "bytes", "base64")
    given = next((part[key] for key in keys if part.get(key) not in (None, "")), None)
    if given is not None:
        images.append(given)
    return IMAGE


def _image(value: Any, name: str = "images") -> cells.ImageCell:
    """An image of a message: a path, a file: or data: address, or an object that holds one of these, or its bytes."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "url", "path", "data", "image") if value.get(key)), None)
        value = f"data:;base64,{value}" if isinstance(value, str) and _looks_packed(value) else value
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value.strip():
        raise RowError(name, "bad_images", f"an image is a path or a data: address, not {cells.described(value)}")
    text = value.strip()
    scheme = text.partition(":")[0].lower() if ":" in text else ""
    if scheme in ("http", "https", "s3", "gs"):
        raise RowError("images", "remote_image", "images are not fetched; download it and give its path")
    if scheme == "file":
        return cells.text({"images": unquote(urlsplit(text).path)}, "images", required=True)
    if scheme == "data":
        try:
            return base64.b64decode(text.partition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RowError("images", "bad_images", "a data: address that is not base64") from error
    return cells.text({"images": text}, "images")


def _looks_packed(value: str) -> bool:
    return len(value) > 256 and not value.startswith("data:") and "." not in value


def messages_of(value: Any, name: str) -> list[tuple[str, Said]]:
    """Role (user or assistant) and content of a text, which is the user's, or of messages; system ones are left out.

    Raises `RowError` for what is neither.
    """
    if not isinstance(value, list):
        return [("user", said(value, name))]
    if not all(isinstance(message, Mapping) for message in value):
        raise RowError(name, f"bad_{name}", "expected a list of messages")
    roles = [str(message.get("from", message.get("role", ""))).lower() for message in value]
    known = [(role, message) for role, message in zip(roles, value) if role != "system"]
    return [("user" if role in ASKS else "assistant", said(message, name)) for role, message in known]


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
    if answer.images or places(answer.text):
        raise RowError(name, "placeholders", "an answer holds an image; only a question may")
    return answer.text


def task_of(answer: str) -> cells.Cells:
    """{"task": "report"} for a long answer, otherwise nothing: the ingest tells closed from open."""
    return {"task": "report"} if len(answer.split()) >= LONG_WORDS else {}


def images_of(row: cells.Cells, given: Sequence[Any] = ()) -> cells.Cells:
    """The row's images under our names: its own columns, or those `given` by the parts of its messages.

    Raises `RowError` for a video, and where both name images that differ.
    """
    brought = [_image(one) for one in given]
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


IMAGE = "<image>"
_IMAGE = re.compile(
    r"""<\|vision_start\|>(?:<\|image_pad\|>)*(?:<\|vision_end\|>)? | <img>[^<]*(?:<IMG_CONTEXT>)*</img>
    | <start_of_image> | <image_soft_token> | <(?:image|img|ImageHere|image_placeholder)> | <\|?image[ _-]?\d{0,3}\|?>
    | <\|image_pad\|> | <IMG_CONTEXT> | \[IMG\]""",
    re.VERBOSE | re.IGNORECASE,
)
_OTHER = re.compile(r"<\|?(?:video|audio)(?:_pad)?[ _-]?\d*\|?>", re.IGNORECASE)


def places(text: str) -> int:
    """How many images a text places."""
    return len(_IMAGE.findall(text))


def without_places(text: str) -> str:
    """The text without them: the model's own template puts images in."""
    return "\n".join(part.strip() for part in _IMAGE.split(text) if part.strip())


def check_places(placed: int, images: int, name: str) -> None:
    """Raises `RowError` unless a text places as many images as its row has, or none at all."""
    if placed and placed != images:
        detail = f"the text places {placed} images, the row has {images}; give as many of one as of the other"
        raise RowError(name, "placeholders", detail)


def refuse_places(text: str, name: str) -> None:
    """Raises `RowError` for a text that may place nothing (an answer), and for a place of a video or a sound."""
    if _OTHER.search(text):
        raise RowError(name, "video", "videos and sounds are not read; take frames out and name them under images")
    if name != "question" and places(text):
        raise RowError(name, "placeholders", "an answer places an image; only a question may")
