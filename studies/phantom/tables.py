"""Outcomes into tables: shares for the choice on dev, intervals and paired tests on test, every question's outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clinalign.evaluation import statistics as S
from clinalign.evaluation import summarise, vqa
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.text import marked, words
from clinalign.records import Example, Outcome
from studies.phantom.jobs import INPAINT

Runs = Mapping[str, Mapping[int, Sequence[Outcome]]]
"""Outcomes by system and seed."""

FLIPS = ("lesion_noise", "control", INPAINT, "removal")
SHARES = (
    "accuracy",
    "accuracy_closed",
    "accuracy_open",
    "accuracy_against_prior",
    "accuracy_with_prior",
    "accuracy_uncontaminated",
    "intact",
    "words",
    "unparsable",
)
QUOTED = ("n", "seeds", "metrics", "flips")
COMPARED = ("accuracy", "accuracy_against_prior", "accuracy_uncontaminated", "flip_removal")
DIGITS = 6
WINDOW = 5
LAST = 10


def wording(outcome: Outcome, example: Example) -> tuple[str, ...]:
    """The words of an answer outside its claim, the finding's name and the form of the article left out."""
    name = words(str(example.meta.get("finding") or ""))
    said = [word for word, claimed in marked(outcome.text, outcome.slots.get("span")) if not claimed]
    out: list[str] = []
    for word in said:
        out.append("a" if word == "an" else word)
        if name and out[-len(name) :] == name:
            out[-len(name) :] = ["*"]
    return tuple(word for word in out if word != "*")


def own_wording(
    outcomes: Sequence[Outcome], known: Mapping[str, Example], base: Sequence[Outcome]
) -> list[tuple[str, float]]:
    """For each clean answer whether it can be read and is worded as the base words some answer to some question.

    An answer that is not intact but passes here has switched to another of the base's wordings; one that fails both is
    damaged text, or text of another kind.
    """
    wordings = {wording(o, known[o.example_id]) for o in base if o.condition == "clean" and o.correct is not None}
    return [
        (o.example_id, float(o.correct is not None and wording(o, known[o.example_id]) in wordings))
        for o in outcomes
        if o.condition == "clean"
    ]


def shares(outcomes: Sequence[Outcome], examples: Sequence[Example], base: Sequence[Outcome]) -> dict[str, float]:
    """Plain means of one run: SHARES, `right` (right answers of all questions), `own_wording`, flip rates; nan where
    none applies."""
    known = {example.id: example for example in examples}
    clean = {o.example_id: o for o in base if o.condition == "clean"}
    columns: dict[str, list[float]] = {"right": []}
    for outcome in outcomes:
        if outcome.condition == "clean":
            got = vqa.values(outcome, known[outcome.example_id], clean.get(outcome.example_id))
            columns["right"].append(float(outcome.correct is True))
        else:
            got = {f"flip_{outcome.condition}": outcome.metrics.get("flipped", math.nan)}
        for name, value in got.items():
            if not math.isnan(value):
                columns.setdefault(name, []).append(value)
    columns["own_wording"] = [value for _, value in own_wording(outcomes, known, base)]
    names = ["right", "own_wording", *SHARES, *(name for name in columns if name.startswith("flip_"))]
    return {name: _mean(columns.get(name, [])) for name in names}


def test_summary(runs: Runs, examples: Sequence[Example], options: EvaluationOptions) -> dict[str, Any]:
    """`evaluation.summarise` over all systems and seeds (the first system is the baseline, the second is compared with
    all the rest), with flips under inpainting, `right` and `own_wording` beside it."""
    outcomes = [o for system, seeds in runs.items() for o in relabelled(seeds, system)]
    summary = summarise(outcomes, examples, options)
    known = {example.id: example for example in examples}
    for system, seeds in runs.items():
        row = summary["systems"][system]
        right = _by_question([(o.example_id, float(o.correct is True)) for o in _of(seeds, "clean")])
        row["metrics"]["right"] = _interval(right, known, options, share=True)
        base = [o for outcomes in next(iter(runs.values())).values() for o in outcomes]
        worded = [pair for outcomes in seeds.values() for pair in own_wording(outcomes, known, base)]
        row["metrics"]["own_wording"] = _interval(_by_question(worded), known, options, share=True)
        flips = _by_question([(o.example_id, o.metrics.get("flipped", math.nan)) for o in _of(seeds, INPAINT)])
        if flips:
            row["flips"][f"flip_{INPAINT}"] = _interval(flips, known, options, share=True)
    return summary


def quoted(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The systems and comparisons of a summary as far as the page quotes them."""
    systems = {label: {part: row[part] for part in QUOTED} for label, row in summary["systems"].items()}
    for row in systems.values():
        row["metrics"] = {name: row["metrics"].get(name) for name in (*SHARES, "right", "own_wording")}
    return {"systems": systems, "comparisons": [c for c in summary["comparisons"] if c["metric"] in COMPARED]}


def relabelled(seeds: Mapping[int, Sequence[Outcome]], system: str) -> list[Outcome]:
    """Outcomes under the name that a table gives to a system."""
    return [replace(o, system=system, seed=seed) for seed, outcomes in seeds.items() for o in outcomes]


def difference(summary: Mapping[str, Any], a: str, b: str, metric: str = "accuracy") -> dict[str, Any] | None:
    """The paired comparison a - b of a summary, or None."""
    found = [c for c in summary["comparisons"] if (c["a"], c["b"], c["metric"]) == (a, b, metric)]
    return found[0] if found else None


def collapse(curves: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """What the training curves of one system's seeds say: reward accuracy over the last steps, how far the gradient
    norm fell from the first steps to the last, and the margin at the end."""
    rows = []
    for curve in curves:
        accuracy, norm, margin = (
            [float(row[name]) for row in curve if row.get(name) is not None]
            for name in ("rewards/accuracies", "grad_norm", "rewards/margins")
        )
        fall = _mean(norm[:WINDOW]) / max(_mean(norm[-WINDOW:]), 1e-30)
        rows.append((_mean(accuracy[-LAST:]), fall, _mean(margin[-LAST:])))
    names = ("reward_accuracy", "gradient_norm_ratio", "margin")
    return {name: round(_mean([row[i] for row in rows]), DIGITS) for i, name in enumerate(names)}


def every_question(runs: Runs, examples: Sequence[Example], base: Sequence[Outcome]) -> dict[str, Any]:
    """Each question's outcome of each run, compactly: strings with one character or one word a question.

    `right`: 1, 0, or - where the judge could not read the answer; `intact`: 1 or 0; `texts`: indexes into the list of
    answers; margins under each condition in nats, - where none was measured.
    """
    order = [example.id for example in examples]
    known = {example.id: example for example in examples}
    clean = {o.example_id: o for o in base if o.condition == "clean"}
    texts: dict[str, int] = {}
    rows = []
    for system, seeds in runs.items():
        for seed, outcomes in seeds.items():
            by = {(o.condition, o.example_id): o for o in outcomes}
            answers = [by["clean", name] for name in order]
            intact = [vqa.values(o, known[o.example_id], clean.get(o.example_id)).get("intact", 0.0) for o in answers]
            row: dict[str, Any] = {
                "system": system,
                "seed": seed,
                "right": "".join({True: "1", False: "0", None: "-"}[o.correct] for o in answers),
                "intact": "".join(str(int(value)) for value in intact),
                "texts": " ".join(str(texts.setdefault(o.text, len(texts))) for o in answers),
            }
            for condition in FLIPS:
                found = [by.get((condition, name)) for name in order]
                if any(found):
                    row[f"margin_{condition}"] = " ".join(_shown(o, "margin") for o in found)
                    row["margin_clean"] = " ".join(_shown(o, "margin_clean") for o in found)
            rows.append(row)
    asked = {
        "id": order,
        "patient": [example.patient_id for example in examples],
        "task": [example.task for example in examples],
        "prior": [example.meta.get("prior") for example in examples],
        "truth": [example.answer for example in examples],
    }
    return {"questions": {k: " ".join(map(str, v)) for k, v in asked.items()}, "answers": list(texts), "runs": rows}


def rounded(value: Any) -> Any:
    """Six decimals; not a number becomes None."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value


def _shown(outcome: Outcome | None, name: str) -> str:
    value = outcome.metrics.get(name) if outcome is not None else None
    return "-" if value is None else f"{value:.3f}"


def _of(seeds: Mapping[int, Sequence[Outcome]], condition: str) -> list[Outcome]:
    return [o for outcomes in seeds.values() for o in outcomes if o.condition == condition]


def _by_question(values: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Each question's mean over the seeds that have a value."""
    found: dict[str, list[float]] = {}
    for name, value in values:
        if not math.isnan(value):
            found.setdefault(name, []).append(value)
    return {name: _mean(each) for name, each in sorted(found.items())}


def _interval(
    values: Mapping[str, float], known: Mapping[str, Example], options: EvaluationOptions, share: bool
) -> dict[str, Any]:
    patients = [vqa.patient(known[name]) for name in values]
    kind: S.Kind = "share" if share else "mean"
    interval = S.mean_interval(
        list(values.values()), patients, level=options.level, resamples=options.resamples, kind=kind
    )
    return dict(rounded(interval.as_dict()))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
