"""What an evaluation has to say of models built to have a fault: on 200 questions, one a patient."""

from dataclasses import replace

import numpy as np
import pytest
from standins import Stand

from clinalign.evaluation import summarise
from clinalign.imaging.images import read_image, read_mask
from clinalign.measuring import evaluate
from clinalign.measuring import evidence as C
from clinalign.measuring.options import EvaluationOptions

ITEMS = 200
ABLATIONS = EvaluationOptions(
    flips=[], calibration=False, ablations=["blank", "noise", "shuffled", "no_image"], resamples=200, permutations=200
)


@pytest.fixture(scope="module")
def asked(world):
    """200 questions that count as one a patient, the phantoms' images taken in turn."""
    chosen = (world.examples * 3)[:ITEMS]
    return [replace(e, id=f"{e.id}-{n}", patient_id=f"patient{n}") for n, e in enumerate(chosen)]


def ablated(world, asked, speak):
    outcomes, measured = evaluate(Stand(speak), asked, world.folder, ABLATIONS, system="base")
    return summarise(outcomes, asked, ABLATIONS, measurements=measured)["systems"]["base"]


def test_a_model_built_to_answer_from_text_alone_is_flagged(world, asked):
    got = ablated(world, asked, lambda question, images: "Yes, left." if len(question) % 2 else "No, it is small.")
    shuffled = got["ablations"]["shuffled"]
    assert shuffled["changed"]["estimate"] == 0.0 and shuffled["p"] < 0.01
    assert shuffled["ignores_image"] and shuffled["verdict"] == "ignores the image"
    assert any(text.startswith("ignores the image: 0.0 % of answers change under shuffled") for text in got["verdicts"])
    assert set(got["ablations"]) == {"blank", "noise", "shuffled", "no_image"}


def test_a_model_that_changes_one_answer_in_a_hundred_is_flagged_too(world, asked):
    questions = [e.question for e in asked]
    lucky = {min(questions, key=questions.count)}
    assert sum(q in lucky for q in questions) <= 2

    def speak(question, images):
        return world.truth(question, images) if question in lucky else "It is on the left side."

    got = ablated(world, asked, speak)["ablations"]["shuffled"]
    assert 0 < got["changed"]["estimate"] <= 0.01 and got["ignores_image"]


def test_a_model_that_reads_only_the_lesion_passes(world, asked):
    """It answers from the pixels inside the outline of the lesion, wherever it is shown."""
    masks = {e.question: read_mask(world.folder / e.regions[0].mask) for e in asked if e.regions and e.regions[0].mask}

    def speak(question, images):
        if not images or question not in masks:
            return world.truth(question, images)
        seen = images[0][masks[question]]
        return "Yes, on the left." if int(seen.sum()) % 2 else "No, on the right."

    got = ablated(world, asked, speak)
    assert not got["ablations"]["shuffled"]["ignores_image"] and got["ablations"]["shuffled"]["p"] > 0.5
    assert got["ablations"]["shuffled"]["verdict"] == "uses the image"
    assert not any("ignores" in text for text in got["verdicts"])


def test_the_lesion_reader_is_specific(world, monkeypatch):
    clean = {
        (e.question, read_image(world.folder / e.images[0])[:2].tobytes()): (
            read_image(world.folder / e.images[0]),
            read_mask(world.folder / e.regions[0].mask),
        )
        for e in world.examples
        if e.regions
    }

    def margins(vlm, pairs, batch_size):
        found = []
        for pair in pairs:
            image, mask = clean[pair.prompt, pair.images[0][:2].tobytes()]
            found.append(1.0 if (image[mask] == pair.images[0][mask]).all() else -1.0)
        return found

    monkeypatch.setattr(C, "margins", margins)
    options = EvaluationOptions(calibration=False, flip_levels=[15.0, 90.0], flip_limit=60, resamples=200)
    outcomes, measured = evaluate(Stand(world.truth), world.examples, world.folder, options, system="base")
    got = summarise(outcomes, world.examples, options, measurements=measured)["systems"]["base"]
    causal = got["causal"]
    assert [row["sigma"] for row in causal["levels"]] == [15.0, 45.0, 90.0]
    assert all(row["lesion"]["estimate"] > 0.9 and row["control"]["estimate"] == 0 for row in causal["levels"])
    area = causal["area_lesion"]
    assert area["estimate"] == pytest.approx((15 / 2 + 30 + 45) / 90, abs=0.02) and area["patients"] > 10
    assert area["low"] <= area["estimate"] <= area["high"]
    assert causal["area_control"]["estimate"] == 0 and causal["area_specificity"]["low"] > 0.5
    exact = got["flips"]["flip_counterfactual"]
    assert exact["estimate"] == pytest.approx(1.0, abs=0.02) and exact["low"] is not None
    assert got["flips"]["specificity"]["low"] is not None


def test_an_always_yes_model_shows_its_yes_rate_and_chance_balanced_accuracy(world, asked):
    outcomes, measured = evaluate(Stand(lambda question, images: "Yes."), asked, world.folder, ABLATIONS, system="base")
    got = summarise(outcomes, asked, ABLATIONS, measurements=measured)["systems"]["base"]
    assert got["metrics"]["yes_rate"]["estimate"] == 1.0
    assert got["metrics"]["balanced_accuracy"]["estimate"] == pytest.approx(0.5)
    assert any(text.startswith("always says yes: yes to 100.0 % of the yes/no questions") for text in got["verdicts"])
    assert any("balanced accuracy 50.0 %" in text for text in got["verdicts"])


def test_a_good_model_on_questions_that_are_nearly_all_yes_is_not_accused(world, asked):
    closed = [e for e in asked if e.answer == "yes"][:60] + [e for e in asked if e.answer == "no"][:1]
    outcomes, measured = evaluate(Stand(world.truth), closed, world.folder, ABLATIONS, system="base")
    got = summarise(outcomes, closed, ABLATIONS, measurements=measured)["systems"]["base"]
    assert got["metrics"]["yes_rate"]["estimate"] > 0.95 and got["verdicts"] == []


def test_a_model_that_answers_anew_is_seen_to_change_its_claim(world, monkeypatch):
    """It says the truth of the clean image and the opposite where the image is another one."""
    monkeypatch.setattr(C, "margins", lambda vlm, pairs, batch_size: [1.0] * len(pairs))
    images = {(e.question, read_image(world.folder / e.images[0]).tobytes()) for e in world.examples}

    def speak(question, shown):
        if (question, shown[0].tobytes()) in images:
            return world.truth(question, shown)
        return "No, on the other side, not here."

    options = EvaluationOptions(calibration=False, flip_answers=True, flip_limit=40, resamples=200)
    outcomes, measured = evaluate(Stand(speak), world.examples, world.folder, options, system="base")
    got = summarise(outcomes, world.examples, options, measurements=measured)["systems"]["base"]
    answers = got["causal"]["answers"]
    assert set(answers) == {"lesion_noise", "control", "counterfactual"}
    assert all(found["changed"]["estimate"] > 0.8 for found in answers.values())
    noised = [o for o in outcomes if o.condition == "lesion_noise"]
    assert {o.text for o in noised} == {"No, on the other side, not here."}


def test_edits_of_flips_stay_within_the_corpus(world, monkeypatch):
    """A corpus of six findings: no counterfactual names a seventh."""
    from clinalign.language.parse import parse
    from clinalign.language.substitution import values_of
    from clinalign.measuring.evidence import counterfactual

    choices = values_of(world.examples)
    assert len(choices["finding"]) == 6
    asked = [e for e in world.examples if e.kind == "which"] or world.examples
    named = {
        m.value
        for e in asked
        if e.task != "report" and e.regions
        for m in parse(counterfactual(e, e.full, choices).text).of("finding")
    }
    assert named <= set(choices["finding"])
    seen = []
    monkeypatch.setattr(C, "counterfactual", lambda *asked: seen.append(asked[2]) or counterfactual(*asked))
    monkeypatch.setattr(C, "margins", lambda vlm, pairs, batch_size: [1.0] * len(pairs))
    options = EvaluationOptions(calibration=False, flip_limit=10)
    evaluate(Stand(world.truth), world.examples, world.folder, options, system="base")
    assert seen and all(given == choices for given in seen)


def test_the_noise_image_is_the_same_in_every_run(world):
    from clinalign.measuring.ablations import without_image

    first = without_image(world.examples[0], world.folder, "noise", {})
    again = without_image(world.examples[0], world.folder, "noise", {})
    other = without_image(world.examples[1], world.folder, "noise", {})
    assert np.array_equal(first[0], again[0]) and not np.array_equal(first[0], other[0])
    assert first[0].dtype == np.uint8 and 50 < first[0].std() < 70
