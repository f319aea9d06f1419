"""Where a text says that an image stands: <image> and what other models and data sets write for it."""

from __future__ import annotations

import re

from clinalign.errors import RowError

IMAGE = "<image>"
_IMAGE = re.compile(
    r"""<\|vision_start\|>(?:<\|image_pad\|>)*(?:<\|vision_end\|>)? | <img>[^<]*(?:<IMG_CONTEXT>)*</img>
    | <start_of_image> | <image_soft_token> | <(?:image|img|ImageHere|image_placeholder)> | <\|?image[ _-]?\d{0,3}\|?>
    | <\|image_pad\|> | <IMG_CONTEXT> | \[IMG\]""",
    re.VERBOSE | re.IGNORECASE,
)
_OTHER = re.compile(r"<\|?(?:video|audio)(?:_pad)?[ _-]?\d*\|?>", re.IGNORECASE)


def count(text: str) -> int:
    """How many images a text places."""
    return len(_IMAGE.findall(text))


def strip(text: str) -> str:
    """The text without them: the model's own template puts images in."""
    return "\n".join(part.strip() for part in _IMAGE.split(text) if part.strip())


def check(placed: int, images: int, name: str) -> None:
    """Raises `RowError` unless a text places as many images as its row has, or none at all."""
    if placed and placed != images:
        detail = f"the text places {placed} images, the row has {images}; give as many of one as of the other"
        raise RowError(name, "placeholders", detail)


def refuse(text: str, name: str) -> None:
    """Raises `RowError` for a text that may place nothing (an answer), and for a place of a video or a sound."""
    if _OTHER.search(text):
        raise RowError(name, "video", "videos and sounds are not read; take frames out and name them under images")
    if name != "question" and count(text):
        raise RowError(name, "placeholders", "an answer places an image; only a question may")
