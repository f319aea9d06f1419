"""Boxes in each family's words and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import tiny

from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import write_png
from clinalign.measuring.asking import in_words
from clinalign.measuring.measure import System
from clinalign.models import boxes
from clinalign.models.boxes import BY_TYPE, CONVENTIONS, convention
from clinalign.recipe import Recipe
from clinalign.records import Example, Outcome

BOX = [20.0, 30.0, 40.0, 10.0]
SOURCE = (100, 200)
SHOWN = (56, 112)
GOLDEN = {
    "unit": "[0.100, 0.300, 0.300, 0.400]",
    "relative_1000": "[100, 300, 300, 400]",
    "relative_1000_yx": "[300, 100, 400, 300]",
    "qwen2": "<|box_start|>(100,300),(300,400)<|box_end|>",
    "internvl": "<box>[[100, 300, 300, 400]]</box>",
    "resized_pixels": "[11, 17, 34, 22]",
    "loc": "<loc0307><loc0102><loc0410><loc0307>",
}
"""By hand, of an image 200 wide and 100 high shown at 112 x 56: x 20..60 is .1 to .3, y 30..40 is .3 to .4; of 112
pixels 11.2 and 33.6, of 56 16.8 and 22.4; of 1024 307.2, 102.4, 409.6 and 307.2."""


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_box_by_hand(name: str) -> None:
    text = boxes.written(BOX, CONVENTIONS[name], SOURCE, SHOWN)
    assert text == GOLDEN[name]
    [back] = boxes.read(f"It is at {text}, 12 mm.", CONVENTIONS[name], SOURCE, SHOWN)
    assert back == pytest.approx(BOX, abs=200 / 112)  # a pixel of the resized image is the coarsest step
    both = boxes.read(f"{text} and {text}", CONVENTIONS[name], SOURCE, SHOWN)
    assert both == [back, back]


@pytest.mark.parametrize("kind", sorted({*BY_TYPE, *tiny.EVERY_FAMILY, "llava_next", "smolvlm"}))
def test_boxes_of_every_family_come_back(kind: str) -> None:
    """Within a step of its grid: a pixel of the resized image, or a thousandth of a side."""
    rule, rng = convention(kind), np.random.default_rng(3)
    for _ in range(50):
        x, y, w, h = (float(v) for v in rng.uniform((0, 0, 8, 8), (150, 80, 50, 20)))
        [back] = boxes.read(boxes.written([x, y, w, h], rule, SOURCE, SHOWN), rule, SOURCE, SHOWN)
        assert back == pytest.approx([x, y, w, h], abs=2 * SOURCE[1] / (rule.scale or SHOWN[1]) + 0.1)


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
def test_a_model_writes_and_reads_in_source_pixels(family: str) -> None:
    vlm = tiny.tiny(family)
    images = [tiny.image(0, 40, 60), tiny.image(1, 64, 48)]
    text = vlm.in_words("What is in <box>10,5,20,15</box> and <box image=2>8, 16, 24, 32</box>?", images)
    assert "<box>10" not in text and "image=2" not in text
    parts = text.split(" and ")
    [first], [second] = (vlm.boxes_said(part, image) for part, image in zip(parts, images, strict=True))
    assert first == pytest.approx([10, 5, 20, 15], abs=2.5) and second == pytest.approx([8, 16, 24, 32], abs=2.5)
    assert vlm.in_words("Where?", images) == "Where?" and not vlm.boxes_said("None.", images[0])


def test_what_is_no_box() -> None:
    rule = CONVENTIONS["relative_1000"]
    assert boxes.read("[300, 300, 100, 400] [1, 2, 3] (0.1)", rule, SOURCE, SHOWN) == []
    assert boxes.read("[-50, 0, 2000, 500]", rule, SOURCE, SHOWN) == [[0, 0, 200, 50]]
    for text, reason in (("<box>1,2,3</box>", "unparsable_box"), ("<box image=2>1,2,3,4</box>", "box_without_image")):
        with pytest.raises(RowError) as error:
            boxes.in_words(text, rule, [(SOURCE, SHOWN)])
        assert error.value.reason == reason
    with pytest.raises(UsageError, match="relative_1000"):
        convention("llava", "relative_100")
    assert convention("llava", "loc") is CONVENTIONS["loc"]
    [names] = [f.annotation for n, f in Recipe.model_fields.items() if n == "boxes"]
    assert set(get_args(names)) == {"auto", *CONVENTIONS}


def test_a_question_and_a_located_answer(tmp_path: Any) -> None:
    """Half of the true box is found: overlap 1/2, right; a third is wrong; an answer without a box is wrong."""
    vlm = tiny.tiny_llava()
    write_png(tmp_path / "a.png", tiny.image(0, 40, 80))
    example = Example("e", ["a.png"], "Is <box>8,4,16,8</box> a nodule? Where else?", "<box>20,10,40,20</box>")
    [asked] = in_words(vlm, [example], tmp_path)
    assert asked.question == "Is [0.100, 0.100, 0.300, 0.300] a nodule? Where else?" and asked.answer == example.answer
    system = SimpleNamespace(vlm=vlm, folder=tmp_path)
    for text, overlap, correct in (
        ("[0.25, 0.25, 0.75, 0.75]", 1.0, True),
        ("At [0.25, 0.25, 0.5, 0.75].", 0.5, True),
        ("[0.25, 0.25, 0.40, 0.75]", 0.3, False),
        ("Nowhere.", 0.0, False),
    ):
        outcome = Outcome("e", "open", "table", "base", "greedy", 0, "clean", text, None, "rules")
        outcome = System._located(system, example, outcome)  # type: ignore[arg-type]
        assert outcome.metrics["box_iou"] == pytest.approx(overlap, abs=0.02) and outcome.correct is correct
    plain = Outcome("e", "open", "table", "base", "greedy", 0, "clean", "left", None, "rules")
    assert System._located(system, Example("e", ["a.png"], "?", "left"), plain) is plain  # type: ignore[arg-type]
