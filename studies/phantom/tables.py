"""Outcomes into tables: shares for the choice on dev, intervals and paired tests on test, every question's outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clinalign.evaluation import metrics as M
from clinalign.evaluation import statistics as S
from clinalign.evaluation import summarise
from clinalign.evaluation.scores import flipped, margins_of
from clinalign.evaluation.text import marked, words
from clinalign.measuring.measure import Results
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example, Outcome

Runs = Mapping[str, Mapping[int, Results]]
"""Outcomes and measurements by system and seed."""

FLIPS = ("lesion_noise", "control", "inpainted", "counterfactual")
SHARES = (
    "accuracy",
    "accuracy_closed",
    "accuracy_open",
    "accuracy_prior_conflicting",
    "accuracy_prior_aligned",
    "accuracy_prior_neutral",
    "style_preserved",
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
    name = words(example.finding)
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

    An answer that is not of that style but passes here has switched to another of the base's wordings; one that fails
    both is damaged text, or text of another kind.
    """
    wordings = {wording(o, known[o.example_id]) for o in base if o.condition == "clean" and o.correct is not None}
    return [
        (o.example_id, float(o.correct is not None and wording(o, known[o.example_id]) in wordings))
        for o in outcomes
        if o.condition == "clean"
    ]


def shares(results: Results, examples: Sequence[Example], base: Sequence[Outcome], sigma: float) -> dict[str, float]:
    """Plain means of one run: SHARES, `right` (right answers of all questions), `own_wording`, flip rates; nan where
    none applies."""
    known = {example.id: example for example in examples}
    clean = {o.example_id: o for o in base if o.condition == "clean"}
    columns: dict[str, list[float]] = {"right": []}
    for outcome in (o for o in results.outcomes if o.condition == "clean"):
        columns["right"].append(float(outcome.correct is True))
        for name, value in M.values(outcome, known[outcome.example_id], clean.get(outcome.example_id)).items():
            if not math.isnan(value):
                columns.setdefault(name, []).append(value)
    margins = margins_of(results.measurements, sigma)
    for condition, system, name in margins:
        if condition != "clean" and margins["clean", system, name] > 0:
            columns.setdefault(f"flip_{condition}", []).append(float(flipped(margins, condition, system, name)))
    columns["own_wording"] = [value for _, value in own_wording(results.outcomes, known, base)]
    names = ["right", "own_wording", *SHARES, *(name for name in columns if name.startswith("flip_"))]
    return {name: _mean(columns.get(name, [])) for name in names}


def test_summary(runs: Runs, examples: Sequence[Example], options: EvaluationOptions) -> dict[str, Any]:
    """`evaluation.summarise` over all systems and seeds (the first system is the baseline, the second is compared with
    all the rest), with `right` and `own_wording` beside it."""
    every = [relabelled(seeds, system) for system, seeds in runs.items()]
    outcomes, measured = ([row for results in every for row in results[n]] for n in (0, 1))
    summary = summarise(outcomes, examples, options, measurements=measured)
    known = {example.id: example for example in examples}
    for system, seeds in runs.items():
        row = summary["systems"][system]
        right = _by_question([(o.example_id, float(o.correct is True)) for o in _of(seeds, "clean")])
        row["metrics"]["right"] = _interval(right, known, options, share=True)
        base = [o for results in next(iter(runs.values())).values() for o in results.outcomes]
        worded = [pair for results in seeds.values() for pair in own_wording(results.outcomes, known, base)]
        row["metrics"]["own_wording"] = _interval(_by_question(worded), known, options, share=True)
    return summary


def relabelled(seeds: Mapping[int, Results], system: str) -> Results:
    """Outcomes and measurements under the name that a table gives to a system."""
    outcomes, measured = (
        [replace(row, system=system, seed=seed) for seed, results in seeds.items() for row in results[n]]
        for n in (0, 1)
    )
    return Results(outcomes, measured)


def quoted(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The systems and comparisons of a summary as far as the page quotes them."""
    systems = {label: {part: row[part] for part in QUOTED} for label, row in summary["systems"].items()}
    for row in systems.values():
        row["metrics"] = {name: row["metrics"].get(name) for name in (*SHARES, "right", "own_wording")}
    return {"systems": systems, "comparisons": [c for c in summary["comparisons"] if c["metric"] in COMPARED]}


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


def every_question(
    runs: Runs, examples: Sequence[Example], base: Sequence[Outcome], sigma: float = 45.0
) -> dict[str, Any]:
    """Each question's outcome of each run, compactly: strings with one character or one word a question.

    `right`: 1, 0, or - where the judge could not read the answer; `style_preserved`: 1 or 0; `texts`: indexes into the
    list of answers; margins under each condition in nats, - where none was measured.
    """
    order = [example.id for example in examples]
    known = {example.id: example for example in examples}
    clean = {o.example_id: o for o in base if o.condition == "clean"}
    texts: dict[str, int] = {}
    rows = []
    for system, seeds in runs.items():
        for seed, results in seeds.items():
            by = {o.example_id: o for o in results.outcomes if o.condition == "clean"}
            margins = {(c, name): value for (c, _, name), value in margins_of(results.measurements, sigma).items()}
            answers = [by[name] for name in order]
            scores = [M.values(o, known[o.example_id], clean.get(o.example_id)) for o in answers]
            row: dict[str, Any] = {
                "system": system,
                "seed": seed,
                "right": "".join({True: "1", False: "0", None: "-"}[o.correct] for o in answers),
                "style_preserved": "".join(str(int(one.get("style_preserved", 0.0))) for one in scores),
                "texts": " ".join(str(texts.setdefault(o.text, len(texts))) for o in answers),
            }
            for condition in ("clean", *FLIPS):
                if any((condition, name) in margins for name in order):
                    row[f"margin_{condition}"] = " ".join(_shown(margins.get((condition, name))) for name in order)
            rows.append(row)
    asked = {
        "id": order,
        "patient": [example.patient_id for example in examples],
        "task": [example.task for example in examples],
        "prior": [example.prior for example in examples],
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


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _of(seeds: Mapping[int, Results], condition: str) -> list[Outcome]:
    return [o for results in seeds.values() for o in results.outcomes if o.condition == condition]


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
    patients = [M.patient(known[name]) for name in values]
    kind: S.Kind = "share" if share else "mean"
    interval = S.mean_interval(
        list(values.values()), patients, level=options.level, resamples=options.resamples, kind=kind
    )
    return dict(rounded(interval.as_dict()))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
