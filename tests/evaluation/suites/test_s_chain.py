"""S-Chain: the parser, overlap of boxes, what is given, and the published score with its faults."""

from __future__ import annotations

import itertools
import random

import pytest
from suite_items import example, outcome

from clinalign.evaluation.suites import s_chain as S
from clinalign.records import Example

CHAIN = """- Step 1: Where are the regions of interest?
Answer: [0.10, 0.20, 0.30, 0.40]; [0.50, 0.20, 0.30, 0.40]
- Step 2: Describe them.
Answer: Widened sulci and mild hippocampal atrophy.
- Step 3: Grade them.
Answer: MTA: B; GCA: A; Koedam: C
- Step 4: What is the class?
Answer: {label}

+ Final answer: {label}"""
LABELS = ("Non-Dementia", "Mild-Dementia", "Moderate-Dementia")


def items(n: int = 12) -> list[Example]:
    return [
        example(k, LABELS[k % 3], "Classify the image.", kind="s_chain", full=CHAIN.format(label=LABELS[k % 3]))
        for k in range(n)
    ]


def full(example: Example) -> str:
    return str(example.full)


def test_a_right_chain_parses_and_scores_all() -> None:
    chain = S.parse(CHAIN.format(label="Mild-Dementia"))
    assert sorted(chain.answers) == [1, 2, 3, 4] and chain.final == "Mild-Dementia" and chain.problems == ()
    scores = S.step_scores(chain, chain)
    assert all(scores[f"step_{k}"] == 1 for k in S.STEPS) and scores["iou"] == 1 and scores["boxes_too_many"] == 0


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.lower,
        lambda t: t.replace("- Step", "**Step").replace(":", ":**", 1),
        lambda t: t.replace(":", "\uff1a"),
        lambda t: t.replace("\n", "\n\n"),
        lambda t: t.replace("- Step", "### Step"),
        lambda t: "Sure, here is my analysis.\n" + t,
    ],
)
def test_the_parser_is_tolerant_in_how_markers_are_written(change: object) -> None:
    text = change(CHAIN.format(label="Mild-Dementia"))  # type: ignore[operator]
    chain = S.parse(text)
    assert sorted(chain.answers) == [1, 2, 3, 4] and chain.problems == ()
    assert S.label(text, [name.lower() for name in LABELS]) == "mild-dementia"


def test_a_missing_step_is_named_and_counts_as_wrong() -> None:
    right = S.parse(CHAIN.format(label="Mild-Dementia"))
    cut = CHAIN.format(label="Mild-Dementia").split("- Step 3")
    text = cut[0] + "- Step 4" + cut[1].split("- Step 4")[1]
    chain = S.parse(text)
    assert chain.problems == ("missing_3",)
    scores = S.step_scores(chain, right)
    assert scores["step_3"] == 0 and scores["step_4"] == scores["step_2"] == 1


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("gca: (a), mta = B; Koedam: C", "MTA: B; GCA: A; Koedam: C", 1),
        ("MTA: B; GCA: B; Koedam: C", "MTA: B; GCA: A; Koedam: C", 0),
        ("MTA: B; GCA: A", "MTA: B; GCA: A; Koedam: C", 0),
        ("B", "B. mild atrophy", 1),
        ("there is a large lesion", "There is a large lesion.", 1),
        ("there is a small lesion", "There is a large lesion.", 0),
    ],
)
def test_options_match_by_scale_and_words_by_wording(said: str, right: str, score: int) -> None:
    chains = [S.parse(f"- Step 3: Grade.\nAnswer: {text}\n") for text in (said, right)]
    assert S.step_scores(*chains)["step_3"] == score


def test_the_faults_of_form_are_named() -> None:
    assert S.parse("nonsense").problems == ("missing_1", "missing_2", "missing_3", "missing_4", "no_final")
    swapped = "- Step 2: a\nAnswer: x\n- Step 1: b\nAnswer: y\n- Step 1: c\nAnswer: z\n+ Final answer: Non-Dementia"
    chain = S.parse(swapped)
    assert set(chain.problems) == {"out_of_order", "repeated_1", "missing_3", "missing_4"}
    assert chain.answers[1] == "y"


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], 1.0),
        ([0, 0, 1, 1], [1, 0, 1, 1], 0.0),
        ([0, 0, 1, 1], [5, 5, 1, 1], 0.0),
        ([0, 0, 2, 1], [1, 0, 2, 1], 1 / 3),
        ([0, 0, 2, 2], [1, 1, 2, 2], 1 / 7),
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 4),
    ],
)
def test_iou_by_hand(a: list[float], b: list[float], value: float) -> None:
    """Identity 1, disjoint 0, half overlap 1/3, a corner of one 1/(4 + 4 - 1), a quarter within 4/16."""
    assert S.iou(a, b) == pytest.approx(value, abs=1e-12) == S.iou(b, a)


def test_the_matching_is_the_best_of_all() -> None:
    """Hungarian equals the best of every assignment; greedy by largest overlap does not always."""
    rng = random.Random(0)
    for _ in range(50):
        said, true = ([[rng.random(), rng.random(), 0.4, 0.4] for _ in range(n)] for n in (4, 3))
        best = max(sum(S.iou(true[k], said[j]) for k, j in enumerate(p)) for p in itertools.permutations(range(4), 3))
        assert S.mean_iou(said, true) == pytest.approx(best / 3, abs=1e-12)


def test_boxes_too_few_and_too_many() -> None:
    box, far = [0.1, 0.1, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]
    assert S.mean_iou([box], [box, far]) == 0.5
    assert S.mean_iou([box, far, [0.4, 0.4, 0.1, 0.1]], [box]) == 1.0
    assert S.mean_iou([], [box]) == 0.0 and S.mean_iou([], []) == 1.0 and S.mean_iou([box], []) == 0.0
    assert S.boxes("x: 0.1, y: 0.2, w: 0.3, h: 0.4 and (1 2 3 4)") == [[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]]


def test_four_steps_given_leak_the_answer() -> None:
    """The prefix of k steps is put before what the model goes on with; with four of them nothing is left to say."""
    examples = items()
    outcomes = [outcome(e, S.given(full(e), 4), "step_given_4") for e in examples]
    outcomes += [outcome(e, S.given(full(e), 1), "step_given_1") for e in examples]
    outcomes += [outcome(e, "") for e in examples]
    scores = S.summary(outcomes, examples)
    assert scores["step_given_4"]["estimate"] == 1.0
    assert scores["step_given_1"]["estimate"] == 0.0
    assert S.given(full(examples[0]), 2).count("Answer:") == 2
    assert scores["unparsable"]["estimate"] == 1.0 and scores["final"]["estimate"] == 0.0 and scores["final"]["n"] == 12


def test_unparsable_is_wrong_in_every_score_and_the_macro_f1_by_hand() -> None:
    """Nine of twelve right, three (one class) unread: F1 is 1, 1 and 0, mean 2/3; the published score counts the
    three as moderate, the first other class: F1 1 (non), 0 (mild), 2*4/(4+7) (moderate)."""
    examples = items()
    texts = [full(e) if e.answer != "Mild-Dementia" else "I see a brain." for e in examples]
    scores = S.summary([outcome(e, t) for e, t in zip(examples, texts, strict=True)], examples)
    assert scores["final"]["estimate"] == pytest.approx(2 / 3)
    assert scores["unparsable"]["estimate"] == pytest.approx(1 / 3)
    assert scores["macro_f1"]["estimate"] == pytest.approx(2 / 3)
    assert scores["legacy"]["final"] == pytest.approx(2 / 3)
    assert scores["legacy"]["wrong_label"] == 4
    assert scores["legacy"]["macro_f1"] == pytest.approx((1 + 0 + 8 / 12) / 3)


def test_the_published_steps_are_aligned_from_the_end() -> None:
    """A chain without step 1 leaves step 1's denominator; ours counts it wrong."""
    gold = CHAIN.format(label="Mild-Dementia")
    late = "- Step 2" + gold.split("- Step 2")[1]
    old = S.legacy([(gold, gold), (gold, late)], LABELS)["steps"]
    assert old == {"Step 1": 1.0, "Step 2": 1.0, "Step 3": 1.0, "Step 4": 1.0}
    examples = [example(k, "Mild-Dementia", full=gold) for k in range(2)]
    ours = S.summary([outcome(examples[0], gold), outcome(examples[1], late)], examples)["steps"]
    assert ours["step_1"]["estimate"] == 0.5
    more = S.legacy([(gold, "Answer: extra\n" + gold)], LABELS)["steps"]
    assert more["Step 0"] == 0.0 and more["Step 4"] == 1.0


def test_intervals_count_patients_and_not_images() -> None:
    few, many = items(), items()
    for n, e in enumerate(few):
        e.patient_id = f"p{n % 3}"
    texts = [full(e) if n % 2 else "" for n, e in enumerate(many)]
    wide, narrow = (S.summary([outcome(e, t) for e, t in zip(x, texts, strict=True)], x)["final"] for x in (few, many))
    assert wide["patients"] == 3 and narrow["patients"] == 12
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
