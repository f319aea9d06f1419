"""S-Chain (arXiv 2510.22728): a four-step visual chain of thought, each step scored, the boxes by their overlap.

    - Step 1: <where to look>
    Answer: [x, y, w, h]; [x, y, w, h]
    - Step 2: <what it looks like>
    Answer: <words>
    - Step 3: <grades by scale, multiple choice>
    Answer: MTA: B; GCA: A
    - Step 4: <class>
    Answer: <label>

    + Final answer: <label>

An example's `full` is such a text, its `answer` the label. Boxes are x, y, w, h from the top left, as shares of the
image. Patients are few (nine in the published test split), so all intervals are by patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from clinalign.evaluation.metrics import patient, truth
from clinalign.evaluation.suites.modality import classified
from clinalign.evaluation.suites.shares import field as declared
from clinalign.evaluation.suites.shares import of_counts, share, under, values
from clinalign.evaluation.text import text_metrics
from clinalign.records import Box, Example, Outcome

STEPS = (1, 2, 3, 4)
BOXED = 1
"""The step whose answer is boxes."""
OVERLAP = 0.5
"""Mean overlap from which a step of boxes counts as right."""
_STEP = re.compile(r"^[\W_]*step[ \t]*(\d+)[ \t]*[*_]*[ \t]*(?:[:.)\uff1a-]|$)", re.I | re.M)
_ANSWER = re.compile(r"(?:\banswer|^[\W_]*a)[ \t]*[*_]*[ \t]*[:\uff1a][*_]*", re.I | re.M)
_FINAL = re.compile(r"[+*\-#\s]*final[ \t]+answer[ \t]*[*_]*[ \t]*(?:is\b[ \t]*)?[:\uff1a]?[*_]*", re.I)
_NUMBER = r"(-?\d*\.?\d+(?:e-?\d+)?)"
_BOX = re.compile(_NUMBER + (r"\s*[,;\s]\s*(?:[xywh]\w*\s*[:=]\s*)?" + _NUMBER) * 3, re.I)
_LETTERED = re.compile(r"(?:([a-z][\w -]*?)\s*[:=]\s*|^)\(?\b([a-e])\b\)?(?=\s*(?:[;,.:)]|$))", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Chain:
    """A parsed chain: `answers` by step, `final` the words after the final marker (None without one), and what is wrong
    with the form: missing_N, repeated_N, out_of_order, no_answer_N, no_final."""

    answers: dict[int, str] = field(default_factory=dict)
    final: str | None = None
    problems: tuple[str, ...] = ()


def parse(text: str) -> Chain:
    """Reads a chain strictly by its markers, and tolerantly in how they are written: case, emphasis, list marks, blanks
    and full-width colons do not count. Of a step that comes twice the first counts."""
    finals = list(_FINAL.finditer(text))
    body, final = (text[: finals[-1].start()], text[finals[-1].end() :]) if finals else (text, None)
    final = final.strip().splitlines()[0].strip(" .*_") if final and final.strip() else None
    marks = list(_STEP.finditer(body))
    answers: dict[int, str] = {}
    problems: list[str] = []
    numbers = [int(mark[1]) for mark in marks]
    ends = [*(mark.start() for mark in marks), len(body)][1:]
    for mark, number, end in zip(marks, numbers, ends):  # without a mark the one end is over
        if number in answers:
            problems.append(f"repeated_{number}")
            continue
        part = body[mark.end() : end]
        said = _ANSWER.search(part)
        if said is None:
            problems.append(f"no_answer_{number}")
            continue
        answers[number] = " ".join(part[said.end() :].split())
    problems += ["out_of_order"] if numbers != sorted(numbers) else []
    problems += [f"missing_{step}" for step in STEPS if step not in numbers]
    return Chain(answers, final, (*problems, *(["no_final"] if final is None else [])))


def given(chain: str, steps: int) -> str:
    """The first `steps` steps of a right chain, to be put in the model's mouth: up to "- Step k+1:", as published. With
    all four the final answer is given too, so whoever scores below 100 % then has a scorer that is wrong. It ends its
    line: what the model goes on with is no part of the last word given."""
    cut = re.search(rf"^[\W_]*step[ \t]*{steps + 1}\b", chain, re.I | re.M)
    return chain[: cut.start()] if cut else f"{chain.rstrip()}\n"


def with_boxes(chain: str, other: str) -> str:
    """A chain with the boxes of another one in its first step: does the rest of the answer follow what it is told?"""
    own, theirs = (parse(text).answers.get(BOXED, "") for text in (chain, other))
    return chain.replace(own, theirs, 1) if own else chain


def boxes(text: str) -> list[Box]:
    """Every four numbers in a row as a box x, y, w, h; those without an area are left out."""
    found = [[float(number) for number in match.groups()] for match in _BOX.finditer(text)]
    return [box for box in found if box[2] > 0 and box[3] > 0]


def iou(a: Box, b: Box) -> float:
    """Overlap over union of two boxes x, y, w, h. By hand: [0, 0, 2, 1] and [1, 0, 2, 1] share 1 of 3."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = _corners(a), _corners(b)
    width, height = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
    shared = max(0.0, width) * max(0.0, height)
    # the areas from the same corners, so that a box overlaps itself by exactly 1
    return shared / ((right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - shared)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def mean_iou(said: Sequence[Box], true: Sequence[Box]) -> float:
    """Mean over the true boxes of the overlap with the box matched to each (Hungarian, largest sum); an unmatched one
    counts 0, a box too many does not count. The published rule is not known. 1 where there is nothing to find."""
    if not true:
        return float(not said)
    overlaps = np.array([[iou(a, b) for b in said] for a in true]).reshape(len(true), len(said))
    rows, columns = linear_sum_assignment(-overlaps)
    return float(overlaps[rows, columns].sum() / len(true))


def step_scores(said: Chain, true: Chain) -> dict[str, float]:
    """What one chain scores against the right one: `step_1` to `step_4` (0 or 1), `iou` and `boxes_too_many` of step 1,
    `token_f1_2` to `token_f1_4`. A step that is missing scores 0."""
    scores: dict[str, float] = {}
    for step in true.answers:
        answer = said.answers.get(step, "")
        right = true.answers[step]
        if step == BOXED:
            mine, gold = boxes(answer), boxes(right)
            scores["iou"] = mean_iou(mine, gold) if answer else 0.0
            scores["boxes_too_many"] = float(max(0, len(mine) - len(gold)))
            scores[f"step_{step}"] = float(scores["iou"] >= OVERLAP)
            continue
        scores[f"token_f1_{step}"] = text_metrics(answer, right)["token_f1"]
        options = _options(right)
        same = _options(answer) == options if options else normalised(answer) == normalised(right)
        scores[f"step_{step}"] = float(bool(answer) and same)
    return scores


def summary(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any]:
    """`final` (accuracy), `macro_f1`, `steps` and `iou`, the shares of answers `unparsable` (no label can be read) and
    `malformed` (any error of form), `step_given_k` and the `shuffled_boxes` control where they were asked, and the
    scores as published (`legacy`). An answer that cannot be read is wrong in all of them."""
    labels = sorted({truth(example) for example in examples})
    asked = under(outcomes, "clean")
    known = {example.id: example for example in examples}
    chains = {e.id: parse(str(declared(e, "full") or "")) for e in examples}
    every = [name for step in STEPS for name in (f"step_{step}", f"token_f1_{step}")] + ["iou"]
    scored = {
        (o.example_id, o.text): step_scores(parse(o.text), chains[o.example_id])
        for o in asked
        if o.example_id in chains
    }
    table = {name: values(asked, examples, lambda e, o, n=name: scored[e.id, o.text].get(n)) for name in every}  # type: ignore[misc]
    out: dict[str, Any] = {
        "final": share(_final(asked, examples, labels), examples),
        "macro_f1": _macro_f1([(known[o.example_id], o.text) for o in asked if o.example_id in known], labels),
        "steps": {name: share(scores, examples) for name, scores in table.items() if scores},
        "unparsable": share(values(asked, examples, lambda e, o: float(label(o.text, labels) is None)), examples),
        "malformed": share(values(asked, examples, lambda e, o: float(bool(parse(o.text).problems))), examples),
        "legacy": legacy([(str(declared(known[o.example_id], "full") or ""), o.text) for o in asked], labels),
    }
    conditions = [f"step_given_{k}" for k in STEPS if under(outcomes, f"step_given_{k}")]
    shuffled = ["shuffled_boxes"] if under(outcomes, "shuffled_boxes") else []
    probes = {c: share(_final(under(outcomes, c), examples, labels), examples) for c in [*conditions, *shuffled]}
    return out | probes


def label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the final answer names; without a final marker, that the answer of the last step names."""
    chain = parse(text)
    last = chain.answers.get(max(chain.answers)) if chain.answers else None
    said = chain.final if chain.final is not None else last if chain.answers else text
    return classified(said or "", labels)


def _final(outcomes: Sequence[Outcome], examples: Sequence[Example], labels: Sequence[str]) -> dict[str, float]:
    return values(outcomes, examples, lambda e, o: float(label(o.text, labels) == truth(e)))


def _macro_f1(asked: Sequence[tuple[Example, str]], labels: Sequence[str]) -> dict[str, Any]:
    counts = np.zeros((len(asked), len(labels), 3))
    for n, (example, text) in enumerate(asked):
        true, said = truth(example), label(text, labels)
        for one in {true, said} - {None}:
            counts[n, labels.index(str(one)), 0 if true == said else 1 if one == said else 2] = 1
    return of_counts(counts, [patient(example) for example, _ in asked])


def normalised(text: str) -> str:
    """Lower case, hyphens and punctuation as blanks, without articles."""
    return " ".join(w for w in re.sub(r"[^\w.%]+|_", " ", text.lower()).split() if w not in ("a", "an", "the")).strip(
        "."
    )


def _options(text: str) -> dict[str, str]:
    """The letter chosen on each scale ("MTA: B; GCA: (a)"), under "" where none is named ("B. mild")."""
    return {normalised(scale): letter.upper() for scale, letter in _LETTERED.findall(text)}


def legacy(pairs: Sequence[tuple[str, str]], labels: Sequence[str]) -> dict[str, Any]:
    """The published score of (right chain, answer) pairs, with its errors, so that numbers can be compared.

    The final answer is what follows the last "+ final answer:", whole and normalised, or the whole answer without one;
    one that is no label counts as the first other class in macro-F1. Steps are what follows "answer:", without the
    first and the last piece, aligned from the end: steps missing at the start leave the denominator, and with steps too
    many the index is negative and wraps around (beyond the list the program would end; here it is a wrong step).
    """
    order = sorted((normalised(name) for name in labels), key=_severity)
    steps: dict[int, list[bool]] = {}
    true_labels, said_labels, exact, wrong = [], [], 0, 0
    for gold, text in pairs:
        right, answer = (normalised(_after(t.lower(), "+ final answer:")) for t in (gold, text))
        exact += right == answer
        wrong += answer not in order
        true_labels.append(right)
        said_labels.append(answer if answer in order else next((n for n in order if n != right), ""))
        true, said = _pieces(gold), _pieces(text)
        for n, piece in enumerate(said):
            at = n + len(true) - len(said)
            steps.setdefault(at + 1, []).append(-len(true) <= at < len(true) and piece == true[at])
    scores = [_f1(true_labels, said_labels, name) for name in order]
    return {
        "final": exact / len(pairs) if pairs else None,
        "macro_f1": sum(scores) / len(scores) if scores else None,
        "wrong_label": wrong,
        "steps": {f"Step {n}": sum(found) / len(found) for n, found in sorted(steps.items())},
    }


def _severity(name: str) -> tuple[int, str]:
    """The published order of classes: moderate, mild, non."""
    return next((n for n, word in enumerate(("moderate", "mild", "non")) if name.startswith(word)), 3), name


def _after(text: str, mark: str) -> str:
    return text.split(mark)[-1].split("assistant:")[-1].strip()


def _pieces(text: str) -> list[str]:
    pieces = [
        p.strip().split("\n- step")[0].split("+ final")[0].replace("\n", "") for p in text.lower().split("answer:")
    ]
    return [normalised(piece) for piece in pieces][1:-1]


def _f1(true: Sequence[str], said: Sequence[str], name: str) -> float:
    hits = sum(t == s == name for t, s in zip(true, said, strict=True))
    total = sum(t == name for t in true) + sum(s == name for s in said)
    return 2 * hits / total if total else 0.0
