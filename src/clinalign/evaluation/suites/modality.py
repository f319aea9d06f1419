"""Text versus vision ("Why Text Prevails", arXiv 2512.13747): does the image help, or does it get in the way?

Arms: both (`clean`), text alone (`no_image`), vision alone (`no_text`). A missing modality is taken away, not blanked.
Controls, with both: a black image (`blank`), noise (`noise`), another patient's image (`shuffled`) or one of the same
label (`same_label`), another patient's text (`shuffled_text`). An example's clinical text is its slot "context"; its
question ends with the bare question, the slot "question".

Interference is score(text) - score(both): above 0 the image lowers the score. Gain is score(both) - score(both with a
shuffled image): 0 for whoever does not look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from clinalign.evaluation.metrics import patient, truth, yes_no
from clinalign.evaluation.suites.shares import (
    answered,
    areas,
    balanced_accuracy,
    correct,
    difference,
    field,
    macro_f1,
    micro_f1,
    of_counts,
    share,
    slot,
    under,
    values,
)
from clinalign.language.claims import claims
from clinalign.language.graph import is_a
from clinalign.language.lexicon import canonical
from clinalign.language.wordings import cleaned, concluding
from clinalign.records import Example, Outcome

ARMS = ("no_image", "no_text", "clean")
CONTROLS = ("blank", "noise", "shuffled", "same_label", "shuffled_text")
STAGE = "stage"
"""The kind of a question about one of several stages."""
FRAME = "Clinical information: {context}\n{question}"
STRATEGIES = ("examples", "caption", "tower")
"""Reason-annotated examples in the prompt; a caption instead of the image; a vision tower tuned on a few labels."""


def prompt(example: Example, arm: str, context: str | None = None) -> str:
    """The prompt of an arm in the one frame: the context (its own, or another patient's), then the bare question."""
    question = str(slot(example, "question") or example.question)
    text = slot(example, "context") if context is None else context
    return question if arm == "no_text" or not text else FRAME.format(context=text, question=question)


def with_examples(query: str, shots: Sequence[tuple[str, str, str]]) -> str:
    """A prompt after worked examples (inputs, reasons, label): strategy one of the paper."""
    worked = [f"{inputs}\nReasoning: {reasons}\nAnswer: {label}" for inputs, reasons, label in shots]
    return "\n\n".join([*worked, query])


def with_caption(example: Example, caption: str) -> str:
    """The prompt in which a caption, made by the model itself, stands for the image: strategy two."""
    context = " ".join(part for part in (str(slot(example, "context") or ""), f"Image: {caption.strip()}") if part)
    return prompt(example, "clean", context)


def summary(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any]:
    """`accuracy`, `f1` (macro), `micro_f1`, for stages `balanced_accuracy`, where probabilities were measured
    `auroc`, each by arm and control; `interference` and `gain` (also against each other control) with paired
    intervals and tests, the share of `unparsable` answers, and how many texts give their label away (`leaks`)."""
    conditions = [c for c in (*ARMS, *CONTROLS, *STRATEGIES) if under(outcomes, c)]
    right = {c: values(under(outcomes, c), examples, _right) for c in conditions}
    unread = {c: values(under(outcomes, c), examples, _unread) for c in conditions}
    leaks = [e.id for e in examples if leak(e)]
    out: dict[str, Any] = {
        "accuracy": {c: share(found, examples) for c, found in right.items()},
        **_by_label(outcomes, examples, conditions),
        "unparsable": {c: share(found, examples) for c, found in unread.items()},
        "leaks": {"n": len(leaks), "share": len(leaks) / len(examples) if examples else None},
        "gains": {
            c: difference(right["clean"], right[c], examples) for c in CONTROLS if c in right and "clean" in right
        },
    }
    if {"no_image", "clean"} <= right.keys():
        out["interference"] = difference(right["no_image"], right["clean"], examples)
    if "shuffled" in out["gains"]:
        out["gain"] = out["gains"]["shuffled"]
    return out


def _by_label(outcomes: Sequence[Outcome], examples: Sequence[Example], conditions: Sequence[str]) -> dict[str, Any]:
    """What is summed or averaged over labels, by condition; nothing of a condition where there is nothing to tell."""
    staged = any(field(example, "kind") == STAGE for example in examples)
    wanted = {"f1": macro_f1, "micro_f1": micro_f1} | ({"balanced_accuracy": balanced_accuracy} if staged else {})
    counted = {c: label_counts(under(outcomes, c), examples) for c in conditions}
    out: dict[str, Any] = {
        name: {c: of_counts(*found, combine) for c, found in counted.items() if found is not None}
        for name, combine in wanted.items()
    }
    found = {c: auroc(under(outcomes, c), examples) for c in conditions}
    return out | {"auroc": {c: area for c, area in found.items() if area is not None}}


def label_counts(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> tuple[np.ndarray, list[str]] | None:
    """True positives, false positives and false negatives [n, labels, 3] and the patients: of yes by `finding` for
    yes/no questions, of the classes otherwise. An answer that cannot be read misses its own label and names no other.
    None where the labels cannot be told."""
    known = {example.id: example for example in examples}
    asked = [(known[o.example_id], o.text) for o in outcomes if o.example_id in known]
    binary = [(e, t) for e, t in asked if yes_no(e) and field(e, "finding")]
    rows: list[tuple[str, str | None, str | None]] = [
        (patient(e), str(field(e, "finding")) if truth(e) == "yes" else None,
         str(field(e, "finding")) if _yes(e, t) else None)
        for e, t in binary
    ] or [(patient(e), truth(e), classified(t, _classes(examples))) for e, t in asked]  # fmt: skip
    classes = sorted({label for _, *both in rows for label in both if label})
    if not classes:
        return None
    counts = np.zeros((len(rows), len(classes), 3))
    for n, (_, true, said) in enumerate(rows):
        for label in {true, said} - {None}:
            counts[n, classes.index(str(label)), 0 if true == said else 1 if label == said else 2] = 1
    return counts, [row[0] for row in rows]


def choices(example: Example) -> tuple[str, ...]:
    """The answers whose probabilities are measured: yes and no, or the stages; none of another question."""
    if field(example, "kind") == STAGE:
        return tuple(slot(example, "classes") or ())
    return ("yes", "no") if yes_no(example) else ()


def chance(choice: str) -> str:
    """The name under which an outcome's `metrics` hold the probability of a choice."""
    return f"p:{choice}"


def auroc(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any] | None:
    """Macro-AUROC: of the probability of yes by `finding`, or of each stage against the others. None where no
    probabilities were measured."""
    known = {example.id: example for example in examples}
    scores: dict[str, dict[str, float]] = {}
    positive: dict[str, dict[str, float]] = {}
    for label, choice, at in _labels(examples):
        asked = [o for o in outcomes if o.example_id in at and chance(choice) in o.metrics]
        found = values(asked, examples, lambda e, o, choice=choice: o.metrics[chance(choice)])  # type: ignore[misc]
        if found:
            scores[label] = found
            positive[label] = {name: float(truth(known[name]) == choice) for name in found}
    return areas(scores, positive, examples) if scores else None


def _labels(examples: Sequence[Example]) -> list[tuple[str, str, set[str]]]:
    """(label, the choice that says it, ids of the questions about it)."""
    staged = {e.id for e in examples if field(e, "kind") == STAGE}
    found = sorted({str(field(e, "finding")) for e in examples if yes_no(e) and field(e, "finding")})
    binary = [(f, "yes", {e.id for e in examples if yes_no(e) and str(field(e, "finding")) == f}) for f in found]
    classes = sorted({c for e in examples if e.id in staged for c in choices(e)})
    return binary + [(c, c, staged) for c in classes]


def _classes(examples: Sequence[Example]) -> list[str]:
    return sorted({truth(example) for example in examples})


def classified(text: str, classes: Sequence[str]) -> str | None:
    """The one of the classes that an answer names; None where it names none or several. A class within a longer one
    that is named there does not count ("dementia" in "mild dementia")."""
    answer = _plain(concluding(cleaned(text)))
    spans = [(m.start(), m.end(), c) for c in classes for m in re.finditer(rf"\b{re.escape(_plain(c))}\b", answer)]
    named = {c for s, e, c in spans if not any((a, b) != (s, e) and a <= s and e <= b for a, b, _ in spans)}
    return named.pop() if len(named) == 1 else None


def labels_said(text: str, labels: Sequence[str]) -> set[str] | None:
    """The labels that an answer to "which of these are present?" names as present; empty for "none" and the like, None
    where nothing in it can be read. Apart, because an empty list is an answer and a shrug is not."""
    answer = concluding(cleaned(text))
    plain = _plain(answer)
    if not plain:
        return None
    by_finding = {known[1]: label for label in labels if (known := canonical(_plain(label), "finding")) is not None}
    said = claims(answer)
    present = {by_finding[c.finding] for c in said if c.finding in by_finding and c.status == "present"}
    denied = [c for c in said if c.status == "absent"]
    listed = {label for label in labels if re.search(rf"\b{re.escape(_plain(label))}\b", plain)}
    listed -= {by_finding[c.finding] for c in said if c.finding in by_finding and c.status != "present"}
    none = re.fullmatch(r"(?:none|no finding|no findings|normal|negative|nothing)(?: .*)?", plain) is not None
    found = {label for label in present | listed if label.lower() != "no finding"}
    return found if found or none or denied or "no finding" in plain else None


def leak(example: Example) -> str | None:
    """The words by which an example's own text gives its label away, or None: the class named, or the finding asked
    about claimed present or absent."""
    text = str(slot(example, "context") or "")
    if not text:
        return None
    if not yes_no(example):
        return truth(example) if re.search(rf"\b{re.escape(_plain(truth(example)))}\b", _plain(text)) else None
    known = canonical(_plain(str(field(example, "finding") or "")), "finding")
    named = [c for c in claims(text) if known and is_a(c.finding, known[1]) and c.status != "uncertain" and c.about_now]
    return text[named[0].start : named[0].end] if named else None


def _right(example: Example, outcome: Outcome) -> float:
    return float(_verdict(example, outcome.text) is True)


def _unread(example: Example, outcome: Outcome) -> float:
    return float(_verdict(example, outcome.text) is None)


def _verdict(example: Example, text: str) -> bool | None:
    """Right or wrong; None where the answer cannot be read. Classes are matched by name."""
    if field(example, "kind") == STAGE:
        said = classified(text, slot(example, "classes") or [])
        return None if said is None else said == truth(example)
    return correct(example, text)


def _yes(example: Example, text: str) -> bool:
    return answered(example, text) == "yes"


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w]+|_", " ", text.lower()).split())
