"""Causal use of the image: three stand-ins with known scores, the published verdicts, stages, false premises."""

from __future__ import annotations

import pytest
from suite_items import example, outcome

from clinalign.evaluation.suites import causal, stages
from clinalign.records import Example, Outcome

CONDITIONS = ("clean", causal.SWAP, causal.TARGET, causal.CONTROL)


def items(n: int = 40) -> list[Example]:
    return [example(k, "yes" if k % 2 else "no") for k in range(n)]


def sees(truth: str, condition: str) -> str:
    """What there is to see under a condition: a donor has the same label, the target mask hides the lesion."""
    return "no" if condition == causal.TARGET else truth


def lesion_reader(examples: list[Example]) -> list[Outcome]:
    words = {"yes": "Yes, there is a nodule.", "no": "There is no nodule."}
    return [outcome(e, words[sees(e.answer, c)], c) for e in examples for c in CONDITIONS]


def text_only(examples: list[Example]) -> list[Outcome]:
    """Says yes to every second question by its text; what it is shown does not matter."""
    return [outcome(e, "Yes." if int(e.id[1:]) % 3 else "No.", c) for e in examples for c in CONDITIONS]


def test_a_lesion_only_reader_is_grounded_and_stable() -> None:
    examples = items()
    scores = causal.summary(lesion_reader(examples), examples)
    assert [scores[name]["estimate"] for name in ("cgr", "is", "specificity", "accuracy")] == [1.0, 1.0, 1.0, 1.0]
    assert scores["cgr"]["n"] == 20 and scores["is"]["n"] == 40
    assert scores["verdict"] == "uses the image"


def test_a_text_only_model_ignores_the_image() -> None:
    examples = items()
    scores = causal.summary(text_only(examples), examples)
    assert (scores["cgr"]["estimate"], scores["uar"]["estimate"], scores["is"]["estimate"]) == (0.0, 1.0, 1.0)
    assert scores["verdict"] == "ignores the image"


def test_a_model_that_any_mask_confuses_is_unstable() -> None:
    examples = items()
    swayed = {causal.TARGET: "no", causal.CONTROL: "no"}
    outcomes = [outcome(e, swayed.get(c, e.answer), c) for e in examples for c in CONDITIONS]
    scores = causal.summary(outcomes, examples)
    assert scores["cgr"]["estimate"] == 1.0 and scores["is"]["estimate"] == 0.5
    assert scores["specificity"]["estimate"] == 0.0 and scores["verdict"] == "unstable"


def test_an_answer_that_cannot_be_read_counts_against_all_three() -> None:
    """The lesion reader mumbles under every intervention: sound counts 0 in all three, published drops the
    questions."""
    examples = items()
    clean = [o for o in lesion_reader(examples) if o.condition == "clean"]
    outcomes = clean + [outcome(e, "hm", c) for e in examples for c in CONDITIONS[1:]]
    sound = causal.summary(outcomes, examples)
    assert [sound[name]["estimate"] for name in ("cgr", "uar", "is")] == [0.0, 0.0, 0.0]
    assert sound["unparsable"] == {"clean": 0.0, causal.SWAP: 1.0, causal.TARGET: 1.0, causal.CONTROL: 1.0}
    published = causal.summary(outcomes, examples, variant="published")
    assert published["cgr"]["n"] == 0 and published["verdict"] == "unassigned"


@pytest.mark.parametrize(
    ("cgr", "low", "uar", "stability", "verdict"),
    [
        (0.0, 0.0, 1.0, 1.0, "ignores the image"),
        (0.0004, 0.0, 0.9996, 1.0, "ignores the image"),
        (0.0, 0.0, 1.0, 0.69, "unstable"),
        (0.5, 0.3, 0.9, 0.69, "unstable"),
        (0.5, 0.3, 0.9, 0.89, "unassigned"),
        (0.5, 0.3, 0.9, 0.90, "uses the image"),
        (0.1, 0.0, 0.9, 0.95, "unassigned"),
    ],
)
def test_the_published_verdicts(cgr: float, low: float, uar: float, stability: float, verdict: str) -> None:
    assert causal.verdict({"estimate": cgr, "low": low}, {"estimate": uar}, {"estimate": stability}) == verdict


def test_false_premises_are_corrected_accepted_or_neither() -> None:
    """Of four absent nodules asked after: two corrected, one placed, one left open; what is there does not count."""
    examples = [example(k, "no", "Where is the nodule?", kind="localisation") for k in range(4)]
    examples.append(example(4, "yes", "Where is the nodule?", kind="localisation"))
    texts = ["There is no nodule.", "No nodule is seen.", "In the left lower zone.", "I cannot tell.", "On the right."]
    scores = causal.summary([outcome(e, t) for e, t in zip(examples, texts, strict=True)], examples)["false_premises"]
    assert [scores[name]["estimate"] for name in ("corrected", "accepted", "unclear")] == [0.5, 0.25, 0.25]


def test_stage_shares_add_up_and_name_the_stage() -> None:
    """Ten questions, two right; of eight errors four are mended by recognition, two by knowledge, one by both only, one
    by nothing: 1/2, 1/4, 1/8, 1/8."""
    examples = [
        example(
            k, "yes", slots={"presence": "yes", "recognition": "There is a shadow.", "knowledge": "A shadow counts."}
        )
        for k in range(10)
    ]
    mended = {"given_recognition": {0, 1, 2, 3}, "given_knowledge": {4, 5}, "given_both": {0, 1, 2, 3, 4, 5, 6}}
    right = {8, 9}
    outcomes = [outcome(e, "yes" if k in right else "no") for k, e in enumerate(examples)]
    for condition, these in mended.items():
        outcomes += [outcome(e, "yes" if k in these | right else "no", condition) for k, e in enumerate(examples)]
    scores = stages.summary(outcomes, examples)
    shares = {name: found["estimate"] for name, found in scores["shares"].items()}
    assert shares == {"seeing": 0.5, "knowing": 0.25, "seeing and knowing": 0.125, "reasoning": 0.125}
    assert scores["errors"] == 8 and scores["broken"]["given_both"]["estimate"] == 0.0


def test_a_stage_is_put_before_the_question() -> None:
    one = example(0, "yes", slots={"recognition": "A shadow.", "knowledge": "It counts."})
    assert stages.prompt(one, "clean") == one.question
    assert stages.prompt(one, "given_recognition") == f"A shadow. {one.question}"
    assert stages.prompt(one, "given_both") == f"A shadow. It counts. {one.question}"
