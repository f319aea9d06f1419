"""Boxes in each family's words and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import tiny

from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import write_png
from clinalign.language.offsets import spelled
from clinalign.measuring.asking import in_words, targets_in_words
from clinalign.measuring.measure import System, mean_iou
from clinalign.merge import _questions
from clinalign.models import boxes
from clinalign.models.boxes import BY_TYPE, CONVENTIONS, convention
from clinalign.pairs import build_pairs, dataset_pairs
from clinalign.pairs.options import PairOptions
from clinalign.recipe import Recipe, load_recipe
from clinalign.records import Answer, Example, Outcome
from clinalign.storage import Quarantine, Rows, write_table
from clinalign.training.encode import encode_pair, truth_pairs

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


EACH = {
    "llava": "auto", "gemma3": "auto", "qwen2_vl": "auto", "qwen2_5_vl": "auto", "qwen3_vl": "auto", "internvl": "auto",
    "idefics3": "loc",
}  # fmt: skip
"""A family for each convention."""


def place(box: str = "20,10,40,20", **changes: Any) -> Example:
    values: dict[str, Any] = dict(
        question="Where, beside <box>8,4,16,8</box>?", answer=f"<box>{box}</box>", rejected="<box>0,0,10,10</box>",
        full=f"It is at <box>{box}</box>.", split="align",
    )  # fmt: skip
    return Example("e", ["a.png"], **(values | changes))


@pytest.mark.parametrize("family", EACH)
def test_prompts_and_targets_of_training_are_in_the_models_words(family: str, tmp_path: Path) -> None:
    """From the table to token ids and back to source pixels: a data set's pair, a true answer, the repair of a wrong
    answer of the model's own and the turn of a right one."""
    vlm, image = tiny.tiny(family), tiny.image(0, 40, 80)
    vlm.boxes = EACH[family]
    write_png(tmp_path / "a.png", image)
    wrong = replace(place(), id="bad", answer="<box>1,2</box>")
    found, refused = targets_in_words(vlm, [place(), wrong], tmp_path)
    [spoken] = found
    assert isinstance(found, Rows)  # however many they are
    assert (refused["bad"].field, refused["bad"].reason) == ("answer", "unparsable_box")

    def places(text: str) -> list[list[float]]:
        return vlm.boxes_said(text, image)

    def near(text: str, *box: float) -> bool:
        return places(text) == [pytest.approx(list(box), abs=2.5)]

    assert near(spoken.question, 8, 4, 16, 8) and near(spoken.full, 20, 10, 40, 20)
    quarantine, grid = Quarantine(tmp_path / "q"), vlm.image_grid(image)
    [pair] = dataset_pairs([spoken], vlm.tokenizer, PairOptions(editor="dataset"), quarantine)
    sample = encode_pair(vlm, pair, [grid])
    assert near(sample.text, 8, 4, 16, 8)
    assert near(vlm.decode(sample.answers["chosen"]), 20, 10, 40, 20)
    assert near(vlm.decode(sample.answers["rejected"]), 0, 0, 10, 10)
    [truth] = truth_pairs([spoken], vlm.tokenizer, vlm.eos_ids[0])
    assert near(vlm.decode(encode_pair(vlm, truth, [grid]).answers["chosen"]), 20, 10, 40, 20)
    for said, right in ((spoken.rejected, False), (spoken.answer, True)):
        text, ids = spelled(vlm.tokenizer, f"At {said}")
        own = Answer("e", vlm.name, 0, spoken.question, text, [*ids, vlm.eos_ids[0]], "stop")
        boxes = {"e": spelled(vlm.tokenizer, spoken.answer)[0]}
        [made] = build_pairs([spoken], [own], vlm.tokenizer, PairOptions(), quarantine, boxes=boxes)
        encoded = encode_pair(vlm, made, [grid])
        assert made.was_correct is right and near(vlm.decode(encoded.answers["chosen"]), 20, 10, 40, 20)
        assert mean_iou(places(vlm.decode(encoded.answers["rejected"])), [[20.0, 10.0, 40.0, 20.0]]) < 0.5
        assert any(encoded.spans["chosen"]) and any(encoded.spans["rejected"])


def test_marks_that_are_special_tokens_stay_among_the_ids(tmp_path: Path) -> None:
    """Qwen2-VL's tokenizer has its marks around a box as special tokens, which no text shows."""
    vlm, image = tiny.tiny("qwen2_vl"), tiny.image(0, 40, 80)
    vlm.tokenizer.add_special_tokens({"additional_special_tokens": ["<|box_start|>", "<|box_end|>"]}, False)
    marks = vlm.tokenizer.convert_tokens_to_ids(["<|box_start|>", "<|box_end|>"])
    vlm.model.resize_token_embeddings(len(vlm.tokenizer))
    write_png(tmp_path / "a.png", image)
    [spoken], _ = targets_in_words(vlm, [place()], tmp_path)
    quarantine, grid = Quarantine(tmp_path / "q"), vlm.image_grid(image)
    [pair] = dataset_pairs([spoken], vlm.tokenizer, PairOptions(editor="dataset"), quarantine)
    text, ids = spelled(vlm.tokenizer, f"At {spoken.rejected}")
    own = Answer("e", vlm.name, 0, spoken.question, text, [*ids, vlm.eos_ids[0]], "stop")
    boxes = {"e": spelled(vlm.tokenizer, spoken.answer)[0]}
    [made] = build_pairs([spoken], [own], vlm.tokenizer, PairOptions(), quarantine, boxes=boxes)
    [truth] = truth_pairs([spoken], vlm.tokenizer, vlm.eos_ids[0])
    for one in (pair, made, truth):
        sample = encode_pair(vlm, one, [grid])
        for side in ("chosen", "rejected"):
            assert [i for i in sample.answers[side] if i in marks] == marks, (one.id, side)
            assert "box" not in getattr(one, side)
        assert vlm.boxes_said(one.chosen, image) == [pytest.approx([20, 10, 40, 20], abs=0.2)]


def test_a_pair_in_pixels_costs_its_row_and_parity_asks_in_the_models_words(tmp_path: Path) -> None:
    vlm, image = tiny.tiny("qwen3_vl"), tiny.image(0, 40, 80)
    [pair] = dataset_pairs([place()], vlm.tokenizer, PairOptions(editor="dataset"), Quarantine(tmp_path / "q"))
    with pytest.raises(RowError) as error:
        encode_pair(vlm, pair, [vlm.image_grid(image)])
    assert (error.value.field, error.value.reason) == ("prompt", "box_in_pixels")
    write_png(tmp_path / "a.png", image)
    write_table(tmp_path / "examples.parquet", [place(split="test")], Example)
    [(prompt, [shown])] = _questions(tmp_path, load_recipe("phantom", []), 4, vlm)
    assert prompt.startswith("Where, beside [100, 100, 300, 300]?") and np.array_equal(shown, image)
