"""Drift from the base and its worked numbers; the same operation elsewhere; premises that are corrected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinalign.evaluation import summarise
from clinalign.evaluation.options import SummaryOptions
from clinalign.imaging.images import write_png
from clinalign.language.align import Edit
from clinalign.lesions.variants import conditions, moved_change
from clinalign.measuring import measure
from clinalign.measuring.asking import Entry, own_images
from clinalign.measuring.drift import _answer, drift_rows, truth_rows
from clinalign.measuring.evidence import AnswerPair, Paired, paired
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import VLM, load_vlm
from clinalign.models.features import Features, from_arrays
from clinalign.models.head import row_logits
from clinalign.models.tree import Tree, answer_states, fork_of, score, tree_of
from clinalign.records import Example, Measurement, Outcome
from clinalign.storage import Journal

ASKED = "On which side is the nodule?"
SAID = "The nodule is seen on the left side of the chest."


def example(folder: Path, number: int = 0) -> Example:
    grey = np.random.default_rng(number).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    write_png(folder / f"{number}.png", grey)
    return Example(f"e{number}", [f"{number}.png"], ASKED, "right", slots={"side": "right"}, full=SAID)


def logits(vlm: VLM, tree: Tree, features: Features) -> torch.Tensor:
    """Log-probabilities [T, V] of an answer's tokens from a plain pass of its own."""
    states = answer_states(vlm, tree, 0, 0, features)[:-1]
    return row_logits(states, vlm.head.weight, vlm.readout).double().log_softmax(1)


def test_drift_is_the_kl_of_the_whole_vocabulary_token_by_token(tmp_path: Path) -> None:
    """Against the naive form: logits of the model with and without its adapter, softmaxed and summed by hand."""
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=4, alpha=8, dropout=0.0, rslora=False, seed=0)
    torch.manual_seed(1)
    for name, value in vlm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    asked = [example(tmp_path, 0), example(tmp_path, 1)]
    pairs = {e.id: paired(vlm, e, SAID, {}) for e in asked}
    rows = drift_rows(vlm, asked, pairs=pairs, folder=tmp_path, batch_size=2)
    ids = [*vlm.tokenizer(SAID, add_special_tokens=False)["input_ids"], vlm.eos_ids[0]]
    inside = [vlm.tokenizer.decode([i]).strip() == "left" for i in ids]
    assert sum(inside) == 1
    for one in asked:
        image = own_images(one, tmp_path)
        features, (keys,) = from_arrays(vlm, [image])
        tree = tree_of(vlm, ASKED, image, keys, [fork_of([ids])])

        with torch.no_grad():
            policy = logits(vlm, tree, features)
            with vlm.adapter_off():
                base = logits(vlm, tree, features)
        kls = (base.exp() * (base - policy)).sum(1).tolist()
        assert sum(kls) / len(kls) > 1e-2
        rest = [kl for kl, claim in zip(kls, inside, strict=True) if not claim]
        got = {name: value for _, name, value, _, _ in rows[one.id]}
        assert got["drift_claim"] == pytest.approx(kls[inside.index(True)], rel=1e-3)
        assert got["drift_rest"] == pytest.approx(sum(rest) / len(rest), rel=1e-3)
        assert got["drift"] == pytest.approx(sum(kls) / len(kls), rel=1e-3)
    with vlm.adapter_off():
        still = drift_rows(vlm, asked, pairs=pairs, folder=tmp_path, batch_size=1)
    assert all(value == pytest.approx(0, abs=1e-6) for one in still.values() for _, _, value, _, _ in one)


def test_an_answer_that_lacks_a_no_turns_at_the_word_behind_it(tmp_path: Path) -> None:
    """No word of it is in an edit that puts "no" in before it: the choice falls on the word after "is"."""
    vlm = load_vlm("embedded")
    one = replace(example(tmp_path), question="Is there cardiomegaly?", answer="no", slots={"presence": "no"})
    own = paired(vlm, one, "There is cardiomegaly.", {})
    assert own.edit is not None and own.edit.text == "There is no cardiomegaly."
    ids, claim = _answer(vlm, own)
    assert [vlm.tokenizer.decode([i]).strip() for i, inside in zip(ids, claim, strict=True) if inside] == [
        "cardiomegaly"
    ]


def test_every_edit_of_an_answer_has_its_parting_token_among_the_claim(tmp_path: Path) -> None:
    """Two edits, of which the second puts a "no" in: "effusion" is claim, as it is in an answer of that edit alone."""
    vlm = load_vlm("embedded")
    said, other = "The nodule is on the left. There is effusion.", "The nodule is on the right. There is no effusion."
    ids, others = (vlm.tokenizer(t, add_special_tokens=False)["input_ids"] + vlm.eos_ids[:1] for t in (said, other))
    own = Paired(said, AnswerPair(ASKED, (), ids, others), Edit.between(said, other, False, "side+presence"))
    found, claim = _answer(vlm, own)
    assert found == ids
    words = [vlm.tokenizer.decode([i]).strip() for i, inside in zip(ids, claim, strict=True) if inside]
    assert words == ["left", "effusion"]


def test_what_was_measured_under_another_definition_of_drift_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=2, alpha=4, dropout=0.0, rslora=False, seed=0)
    one = example(tmp_path)
    options = EvaluationOptions(drift=True, flips=[], ablations=[], calibration=False, max_new_tokens=4)
    asked: list[int] = []

    def rows(*_: Any, **named: Any) -> dict[str, list[Any]]:
        asked.append(len(named["pairs"]))
        return {one.id: [["clean", "drift", 0.5, None, ""]]}

    monkeypatch.setattr(measure, "drift_rows", rows)
    for number, count in ((measure.DRIFT, 1), (measure.DRIFT, 1), (measure.DRIFT + 1, 2)):
        monkeypatch.setattr(measure, "DRIFT", number)
        journal = Journal(tmp_path / "journal", Entry)
        measure.evaluate(vlm, [one], tmp_path, options, system="s", journal=journal, base={one.id: SAID})
        journal.close(remove=False)
        assert len(asked) == count


def test_loss_on_reference_answers_is_their_mean_negative_log_likelihood(tmp_path: Path) -> None:
    vlm = load_vlm("embedded")
    one = example(tmp_path)
    [[condition, name, value, level, reason]] = truth_rows(vlm, [one], tmp_path, batch_size=4)[one.id]
    ids = [*vlm.tokenizer(SAID, add_special_tokens=False)["input_ids"], vlm.eos_ids[0]]
    image = own_images(one, tmp_path)
    features, (keys,) = from_arrays(vlm, [image])
    logps = score(vlm, [tree_of(vlm, ASKED, image, keys, [fork_of([ids])])], features)[0].logps[0][0]
    assert (condition, name, level, reason) == ("clean", "truth_nll", None, "")
    assert value == pytest.approx(-float(logps.mean()), rel=1e-5)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    body = np.full((40, 40, 3), 120, np.uint8)
    body[:, :3] = body[:, -3:] = 0
    image, mask = body.copy(), np.zeros((40, 40), bool)
    mask[10:14, 8:13] = True
    mask[10, 8] = False
    image[mask] += np.arange(mask.sum(), dtype=np.uint8)[:, None]
    return image, body, mask


def test_the_same_change_elsewhere_is_mirrored_with_its_patch() -> None:
    """A lesion that adds 0, 1, 2 ... to its pixels: elsewhere, mirrored, the same numbers are taken away."""
    image, without, mask = scene()
    found = conditions(image, mask, counterfactual=without, matched=True)
    moved = found["control_counterfactual"].astype(int) - image
    control = np.argwhere(moved[..., 0] != 0)
    assert (moved[mask] == 0).all()
    assert sorted(-moved[..., 0][moved[..., 0] != 0]) == list(range(1, int(mask.sum())))
    assert -moved.sum() == (image.astype(int) - without).sum()
    assert control.min(0)[1] > 20  # the other side
    assert {"inpainted", "control_inpainted"} <= found.keys()
    assert "inpainted" not in conditions(image, mask, counterfactual=without)


def test_a_straight_move_is_not_mirrored() -> None:
    image, without, mask = scene()
    control = np.roll(mask, 12, axis=0)
    moved = moved_change(image, without, mask, control).astype(int) - image
    assert np.array_equal(moved, np.roll(without.astype(int) - image, 12, axis=0))


def outcome(system: str, name: str, condition: str, said: str, correct: bool) -> Outcome:
    slots = {"asked": "open", "said": {"side": said}, "truth": {"side": "left"}}
    return Outcome(name, "open", "s", system, "greedy", 0, condition, said, correct, "rules", slots=slots)


def test_corrected_premises_and_matched_controls_are_summed_up() -> None:
    """Two lesions taken away. One answer says that it is not there, the other names a side still: 1/2. Both margins
    turn without the lesion, one of them also by the same change elsewhere: (1 - 1 + 1 - 0) / 2. One answer changes, by
    removal alone: (1 - 0 + 0 - 0) / 2."""
    examples = [Example(f"e{n}", ["i.png"], ASKED, "left", patient_id=f"p{n}", slots={"side": "left"}) for n in (0, 1)]
    outcomes = [outcome("base", e.id, "clean", "left", True) for e in examples]
    outcomes += [outcome("base", f"e{n}", "counterfactual", said, False) for n, said in ((0, "none"), (1, "left"))]
    outcomes += [outcome("base", e.id, "control_counterfactual", "left", True) for e in examples]
    margins = {"clean": (2, 2), "counterfactual": (-1, -1), "control_counterfactual": (-1, 1)}
    measured = [
        Measurement(f"e{n}", "base", "greedy", 0, condition, "margin", float(value))
        for condition, values in margins.items()
        for n, value in enumerate(values)
    ]
    measured += [Measurement(f"e{n}", "base", "greedy", 0, "clean", "drift_rest", 0.25 * n) for n in (0, 1)]
    found = summarise(outcomes, examples, SummaryOptions(), measurements=measured)["systems"]["base"]
    assert found["flips"]["premise_corrected_counterfactual"]["estimate"] == 0.5
    assert found["flips"]["matched_counterfactual"]["estimate"] == 0.5
    assert found["flips"]["answers_matched_counterfactual"]["estimate"] == 0.5
    assert "answers_matched_inpainted" not in found["flips"]
    assert found["metrics"]["drift_rest"]["estimate"] == 0.125
    assert "matched_inpainted" not in found["flips"]


@pytest.mark.parametrize("clean", ["left", ""])
def test_an_answer_that_says_nothing_corrects_no_premise(clean: str) -> None:
    """Three lesions taken away: one answer says so, one names a side still, one is empty: 1/3, and not 1/2. So it is
    where the clean answer is empty too. What is asked about presence, or about no finding, counts nowhere."""
    examples = [
        Example(f"e{n}", ["i.png"], ASKED, "left", patient_id=f"p{n}", slots={"side": "left"}) for n in range(3)
    ]
    examples += [Example("e3", ["i.png"], "Is there a nodule?", "yes", "closed", patient_id="p3")]
    examples += [Example("e4", ["i.png"], "Which letter?", "A", "open", options=["x", "y"], patient_id="p4")]
    silent = {"correct": None, "slots": {}, "reason": "empty"}
    outcomes = [outcome("base", e.id, "clean", clean or "left", True) for e in examples]
    outcomes = [o if clean else replace(o, text="", **silent) for o in outcomes]
    outcomes += [outcome("base", f"e{n}", "counterfactual", said, False) for n, said in ((0, "none"), (1, "left"))]
    outcomes += [replace(outcome("base", f"e{n}", "counterfactual", "", False), **silent) for n in (2, 3, 4)]
    found = summarise(outcomes, examples, SummaryOptions())["systems"]["base"]
    assert found["flips"]["premise_corrected_counterfactual"]["estimate"] == pytest.approx(1 / 3, abs=1e-6)
