"""Boxes in the words of each model family. Ours are [x, y, w, h] in pixels of the source image, in a text
`<box>10,20,30,40</box>` (of a question's k-th image `<box image=k>`, from 1).

Numbers and order are what each family's cookbook or paper gives: Qwen2-VL (arXiv 2409.12191), Qwen2.5-VL (2502.13923:
pixels of the resized image), Qwen3-VL, InternVL (2404.16821), Gemma 3 and MedGemma (y before x), GLM-4.1V
(2507.01006), PaliGemma (2407.07726), LLaVA 1.5 (shares of the image).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from clinalign.errors import RowError, UsageError, nearest
from clinalign.records import Box

MARK = re.compile(r"<box(?: image=(\d+))?>(?!\[\[)\s*([^<]*?)\s*</box>")
NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
LOCATIONS = re.compile(r"((?:<loc\d{4}>){4})")
FOUR = re.compile(rf"[\[(]{NUMBER},{NUMBER}(?:\)\s*,?\s*\()?,?{NUMBER},{NUMBER}[\])]")


class Convention(NamedTuple):
    """How a family writes a box: corners in `order` of x1, y1, x2, y2, each a share of the image times `scale` (0: in
    pixels of the image as the model is shown it), with so many `digits`, in the words of `form`."""

    scale: float
    form: str
    order: str = "xyxy"
    digits: int = 0


CONVENTIONS = {
    "unit": Convention(1.0, "[{}, {}, {}, {}]", digits=3),
    "relative_1000": Convention(1000.0, "[{}, {}, {}, {}]"),
    "relative_1000_yx": Convention(1000.0, "[{}, {}, {}, {}]", "yxyx"),
    "qwen2": Convention(1000.0, "<|box_start|>({},{}),({},{})<|box_end|>"),
    "internvl": Convention(1000.0, "<box>[[{}, {}, {}, {}]]</box>"),
    "resized_pixels": Convention(0.0, "[{}, {}, {}, {}]"),
    "loc": Convention(1024.0, "<loc{}><loc{}><loc{}><loc{}>", "yxyx"),
}
BY_TYPE = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "resized_pixels",
    "qwen3_vl": "relative_1000",
    "qwen3_vl_moe": "relative_1000",
    "qwen3_5": "relative_1000",
    "qwen3_5_moe": "relative_1000",
    "internvl": "internvl",
    "gemma3": "relative_1000_yx",
    "gemma4": "relative_1000_yx",
    "glm4v": "relative_1000",
    "glm4v_moe": "relative_1000",
    "glm46v": "relative_1000",
    "paligemma": "loc",
}
"""Convention by model type; every other type writes shares of the image."""
Size = tuple[int, int]


def convention(model_type: str, name: str = "auto") -> Convention:
    """The convention of a type, or the named one; `UsageError` for a name that is none."""
    if name == "auto":
        return CONVENTIONS[BY_TYPE.get(model_type, "unit")]
    if name not in CONVENTIONS:
        known = ", ".join(("auto", *CONVENTIONS))
        raise UsageError(f"boxes: '{name}' is unknown; use one of {known}{nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]


def written(box: Box, rule: Convention, source: Size, shown: Size) -> str:
    """A box [x, y, w, h] of a source image (height, width) in a family's words; `shown`: the image as the model is
    shown it. [20, 30, 40, 10] of an image 100 high and 200 wide is [100, 300, 300, 400] in thousandths."""
    x, y, w, h = box
    height, width = source
    corners = {"x": [x / width, (x + w) / width], "y": [y / height, (y + h) / height]}
    along = {"x": rule.scale or shown[1], "y": rule.scale or shown[0]}
    at = {"x": 0, "y": 0}
    numbers = []
    for axis in rule.order:
        number = corners[axis][at[axis]] * along[axis]
        number = min(number, along[axis] - 1) if rule.form.startswith("<loc") else number
        numbers.append(f"{number:.{rule.digits}f}" if not rule.form.startswith("<loc") else f"{round(number):04d}")
        at[axis] += 1
    return rule.form.format(*numbers)


def read(text: str, rule: Convention, source: Size, shown: Size) -> list[Box]:
    """The boxes that an answer names, in pixels of the source image and cut at its border, in the order of the text.
    What has no area inside the image is no box."""
    loc = rule.form.startswith("<loc")
    found = [re.findall(r"\d{4}", part) for part in LOCATIONS.findall(text)] if loc else FOUR.findall(text)
    boxes = []
    for numbers in found:
        sides: dict[str, list[float]] = {"x": [], "y": []}
        for axis, number in zip(rule.order, numbers, strict=True):
            along, size = (shown[1], source[1]) if axis == "x" else (shown[0], source[0])
            sides[axis].append(min(max(float(number) / (rule.scale or along), 0.0), 1.0) * size)
        (x1, x2), (y1, y2) = sides["x"], sides["y"]
        if x2 > x1 and y2 > y1:
            boxes.append([x1, y1, x2 - x1, y2 - y1])
    return boxes


def marked(text: str) -> list[Box]:
    """Our boxes in a text; none where one is no four numbers."""
    try:
        found = [[float(part) for part in inside.split(",")] for _, inside in MARK.findall(text)]
    except ValueError:
        return []
    return found if all(len(box) == 4 for box in found) else []


def in_words(text: str, rule: Convention, sizes: Sequence[tuple[Size, Size]], field: str = "question") -> str:
    """A text with every box of ours in a family's words; `sizes`: of each image, in source pixels and as it is shown.

    Raises `RowError` for one that is no four numbers, or of an image that is not there.
    """

    def replaced(found: re.Match[str]) -> str:
        number = int(found[1] or 1)
        if not 1 <= number <= len(sizes):
            raise RowError(field, "box_without_image", f"a box on image {number} of {len(sizes)}; count from 1")
        try:
            x, y, w, h = (float(part) for part in found[2].split(","))
        except ValueError as error:
            detail = "a box in a text is <box>x,y,w,h</box> in pixels, such as <box>10,20,30,40</box>"
            raise RowError(field, "unparsable_box", detail) from error
        return written([x, y, w, h], rule, *sizes[number - 1])

    return MARK.sub(replaced, text)
