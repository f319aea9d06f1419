"""Report metrics of other packages (RadEval: RadGraph, CheXbert, RaTEScore, GREEN), told apart from what did not run.

They need `pip install radeval` and models from the hub, and they are slow (GREEN: seconds a report). Nothing here is
part of an installation; a metric that cannot run is named with its reason and leaves the rest of the evaluation alone.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from clinalign.errors import RowError
from clinalign.progress import say
from clinalign.records import Example, Outcome

NAMES = {"radgraph": "radgraph", "chexbert": "f1chexbert", "ratescore": "ratescore", "green": "green"}
"""Metric as a recipe names it -> as RadEval does."""

PREFIX = "external/"
Scores = Mapping[str, Sequence[float]]
Scorer = Callable[[str, list[str], list[str]], Scores]


def radeval(name: str, references: list[str], texts: list[str]) -> Scores:
    """Every score that RadEval's metric gives each report, by the key it gives it."""
    package = importlib.import_module("radeval")
    found = package.RadEval(metrics=[NAMES[name]], per_sample=True, show_progress=False)(refs=references, hyps=texts)
    return {key: values for key, values in found.items() if _each(values, len(texts))}


def _each(values: Any, count: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == count


def add_external(
    outcomes: Sequence[Outcome], examples: Sequence[Example], names: Sequence[str], scorer: Scorer = radeval
) -> tuple[list[Outcome], dict[str, dict[str, str]]]:
    """The outcomes, those of reports with `metrics["external/KEY"]`, and what ran (with its version) and what did not.

    One system after another; a metric that fails for one is left out for all, so that no comparison is lopsided.
    """
    truths = {e.id: e.answer for e in examples}
    asked = [n for n, o in enumerate(outcomes) if o.task == "report" and o.condition == "clean"]
    report: dict[str, dict[str, str]] = {"ran": {}, "not_run": {}}
    result = list(outcomes)
    for name in names:
        try:
            if not asked:
                raise RowError("task", "no report was asked for")
            scores = scorer(name, [truths[outcomes[n].example_id] for n in asked], [outcomes[n].text for n in asked])
            if not scores:
                raise RowError("reply", "it gave no score for each report")
        except Exception as error:  # another package's fault, whatever it is, must not end an evaluation
            reason = (
                error.reason if isinstance(error, RowError) else " ".join(f"{type(error).__name__}: {error}".split())
            )
            report["not_run"][name] = reason[:200]
            say(f"{name} did not run: {reason[:200]}")
            continue
        report["ran"][name] = f"radeval {version('radeval')}" if scorer is radeval else scorer.__name__
        for at, n in enumerate(asked):
            found = {PREFIX + key: float(values[at]) for key, values in scores.items()}
            kept = {key: value for key, value in found.items() if math.isfinite(value)}
            result[n] = replace(result[n], metrics=result[n].metrics | kept)
    return result, report
