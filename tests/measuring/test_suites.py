"""The suites end to end on phantoms, with stand-ins whose scores are known: what they see are real pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinalign.data.phantom.dataset import split_patients
from clinalign.data.phantom.suites import write_suite
from clinalign.decoding.options import VCD, Beam, Greedy, Sample
from clinalign.evaluation.suites import SUITES, causal
from clinalign.evaluation.suites.shares import field, slot
from clinalign.imaging.images import read_image, read_mask
from clinalign.measuring.suites import Images, Question, drawn, masked, masks, questions, run
from clinalign.records import Example, Outcome

Prompts = Sequence[tuple[str, Images]]
Answer = Callable[[Prompts, int | None], Sequence[str]]
"""A stand-in: prompts with images, and the seed of a draw, into texts in their order."""
SIZES = {"hallucinogen": 6, "s_chain": 40, "causal": 30, "modality": 60, "stages": 30, "uncertainty": 40}


class Reader:
    """Knows every image, and what is where in it; says of a finding what the pixels show, or nothing but its text."""

    def __init__(self, examples: Sequence[Example], folder: Path) -> None:
        self.images: dict[bytes, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
        for e in examples:
            image = read_image(folder / e.images[0])
            known = self.images.setdefault(image.tobytes(), (image, {}))
            for region in e.regions:
                known[1][region.label] = read_mask(folder / str(region.mask))
        self.findings = sorted({str(field(e, "finding")) for e in examples})

    def lesion(self, prompt: str, image: np.ndarray) -> bool:
        """Whether the finding that a prompt names is in the image, with its pixels untouched."""
        finding = next(f for f in sorted(self.findings, key=len, reverse=True) if f in prompt)
        near = min(self.images.values(), key=lambda known: int((known[0] != image).any(-1).sum()))
        mask = near[1].get(finding)
        return mask is not None and not (near[0] != image).any(-1)[mask].any()

    def pixels(self, prompts: Prompts, draw: int | None) -> list[str]:
        return ["Yes." if images and self.lesion(prompt, images[0]) else "No." for prompt, images in prompts]


def text_only(prompts: Prompts, draw: int | None) -> list[str]:
    """Answers by the letters of the prompt."""
    return ["Yes." if sum(map(ord, prompt)) % 3 else "No." for prompt, _ in prompts]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Example]]]:
    folder = tmp_path_factory.mktemp("suites")
    return folder, {
        name: write_suite(name, folder, split="test", patients=split_patients("test", count), px=32)
        for name, count in SIZES.items()
    }


def outcomes_of(built: tuple[Path, dict[str, list[Example]]], suite: str, answer: Answer) -> list[Outcome]:
    def by_id(asked: Sequence[Question], draw: int | None) -> Mapping[str, str]:
        texts = answer([(question.prompt, question.show()) for question in asked], draw)
        return {question.example.id: text for question, text in zip(asked, texts, strict=True)}

    asked = list(questions(suite, built[1][suite], built[0]))
    return run(suite, asked, by_id, system="model", decoder="greedy", seed=0, samples=10)


def scores(built: tuple[Path, dict[str, list[Example]]], suite: str, answer: Answer) -> dict[str, Any]:
    return SUITES[suite](outcomes_of(built, suite, answer), built[1][suite])


def test_a_lesion_only_reader_has_cgr_one_and_is_one(built: tuple[Path, dict[str, list[Example]]]) -> None:
    reader = Reader(built[1]["causal"], built[0])
    found = causal.summary(outcomes_of(built, "causal", reader.pixels), built[1]["causal"])
    assert found["accuracy"]["estimate"] == found["cgr"]["estimate"] == found["is"]["estimate"] == 1.0
    assert found["uar"]["estimate"] == 1.0 and found["verdict"] == "uses the image"
    assert found["cgr"]["n"] >= 20 and found["is"]["n"] >= 40


def test_a_text_only_model_ignores_the_image(built: tuple[Path, dict[str, list[Example]]]) -> None:
    found = scores(built, "causal", text_only)
    assert [found[name]["estimate"] for name in ("cgr", "uar", "is")] == [0.0, 1.0, 1.0]
    assert found["verdict"] == "ignores the image"


def test_masks_are_the_same_operation_and_lie_apart(built: tuple[Path, dict[str, list[Example]]]) -> None:
    folder, items = built[0], built[1]["causal"]
    seen = 0
    for e in (e for e in items if e.regions):
        image = read_image(folder / e.images[0])
        mask = read_mask(folder / str(e.regions[0].mask))
        target = (masked(e, folder, causal.TARGET)[0] != image).any(-1)
        assert not target[~mask].any()
        if causal.CONTROL in masks(e, folder):
            seen += 1
            assert not (masked(e, folder, causal.CONTROL)[0] != image).any(-1)[mask].any()
    assert seen >= 10


def test_the_text_arm_is_the_same_whatever_the_pixels(
    built: tuple[Path, dict[str, list[Example]]], tmp_path: Path
) -> None:
    """No pixel is read for it: its questions are byte-equal in a folder without images."""
    folder, items = built[0], built[1]["modality"]
    arm = [q for q in questions("modality", items, folder) if q.condition == "no_image"]
    unseen = [q for q in questions("modality", items, tmp_path / "nothing") if q.condition == "no_image"]
    assert [(q.prompt, q.show()) for q in arm] == [(q.prompt, q.show()) for q in unseen] and len(arm) == len(items)
    assert all(q.show() == [] for q in arm)


def test_a_pixel_only_model_has_negative_interference(built: tuple[Path, dict[str, list[Example]]]) -> None:
    found = scores(built, "modality", Reader(built[1]["modality"], built[0]).pixels)
    assert found["interference"]["high"] < 0 < found["gain"]["low"]
    assert found["accuracy"]["no_text"]["estimate"] == 1.0


def test_a_text_only_model_has_no_gain(built: tuple[Path, dict[str, list[Example]]]) -> None:
    found = scores(built, "modality", text_only)
    assert found["gain"]["estimate"] == found["interference"]["estimate"] == 0.0


def test_four_steps_given_leak_and_boxes_of_another_are_given(built: tuple[Path, dict[str, list[Example]]]) -> None:
    folder, items = built[0], built[1]["s_chain"]
    found = scores(built, "s_chain", lambda prompts, draw: [""] * len(prompts))
    assert found["step_given_4"]["estimate"] == 1.0 and found["final"]["estimate"] == 0.0
    spoken = scores(built, "s_chain", lambda prompts, draw: ["No, there is no nodule."] * len(prompts))
    assert spoken["step_given_4"]["estimate"] == 1.0, "what a model goes on with took the answer that was given away"
    shuffled = [q for q in questions("s_chain", items, folder) if q.condition == "shuffled_boxes"]
    others = [q.given not in str(field(q.example, "full")) for q in shuffled]
    assert sum(others) > len(others) / 2


def test_a_model_that_mirrors_is_one_that_lacks_the_knowledge(built: tuple[Path, dict[str, list[Example]]]) -> None:
    """It sees the half of the image and takes it for the patient's side, unless it is told better."""
    folder, items = built[0], built[1]["stages"]

    def by_id(asked: Sequence[Question], draw: int | None) -> Mapping[str, str]:
        texts = {}
        for q in asked:
            e = q.example
            knows = "left side of the patient." in q.prompt.replace(e.question, "")
            texts[e.id] = "Yes." if (slot(e, "side") == slot(e, "asked")) == knows else "No."
        return texts

    asked = list(questions("stages", items, folder))
    found = SUITES["stages"](run("stages", asked, by_id, system="m", decoder="greedy", seed=0, samples=0), items)
    assert found["errors"] == len(items) and found["shares"]["knowing"]["estimate"] == 1.0
    assert found["accuracy"]["given_both"]["estimate"] == 1.0


def test_always_yes_and_always_no_have_the_base_rates(built: tuple[Path, dict[str, list[Example]]]) -> None:
    for word in ("Yes.", "No."):
        found = scores(built, "hallucinogen", lambda prompts, draw, w=word: [w] * len(prompts))
        assert found["all"]["accuracy"]["estimate"] == 0.5
        assert found["all"]["yes_rate"]["estimate"] == float(word == "Yes.")


def test_wavering_where_wrong_is_seen(built: tuple[Path, dict[str, list[Example]]]) -> None:
    reader = Reader(built[1]["uncertainty"], built[0])

    def wavers(prompts: Prompts, draw: int | None) -> list[str]:
        """Right of some findings; of the others wrong, and never twice the same."""
        right = reader.pixels(prompts, draw)
        sure = ["nodule" in p or "effusion" in p or "atelectasis" in p for p, _ in prompts]
        flipped = {"Yes.": "No.", "No.": "Yes."}
        return [r if s or (draw or 1) % 2 == 0 else flipped[r] for r, s in zip(right, sure, strict=True)]

    found = scores(built, "uncertainty", wavers)
    assert found["auroc_entropy"]["estimate"] == 1.0 == found["auroc_confidence"]["estimate"]
    assert found["accuracy"]["estimate"] < 1 and found["n"] >= 30


def test_draws_keep_the_decoder_where_it_can_draw() -> None:
    assert drawn(Greedy(), 3) == drawn(Beam(), 3) == Sample(temperature=1.0, seed=3)
    assert drawn(VCD(alpha=0.5), 3) == VCD(alpha=0.5, temperature=1.0, seed=3)
