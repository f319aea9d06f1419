"""Outcomes of one system into a table of values by metric, seed and question."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from clinalign.evaluation import vqa
from clinalign.evaluation.byquestion import Known, Table
from clinalign.evaluation.causal import FLIPS, add_areas
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.reliance import RELIANCE
from clinalign.evaluation.text import plain
from clinalign.records import Example, Outcome


def collect(
    outcomes: Sequence[Outcome], known: Known, system: str, base: Mapping[str, Outcome], options: EvaluationOptions
) -> Table:
    """The table of `system`; `base`: the baseline's clean outcomes by example."""
    table: Table = defaultdict(lambda: defaultdict(dict))
    own = [o for o in outcomes if o.system == system]
    clean = {(o.seed, o.example_id): o for o in own if o.condition == "clean"}
    for outcome in own:
        name, seed = outcome.example_id, outcome.seed
        if outcome.condition == "clean":
            got = vqa.values(outcome, known[name], base.get(name))
        elif outcome.condition in RELIANCE:
            got = _without_image(outcome, known[name], clean.get((seed, name)))
        elif outcome.condition in FLIPS:
            got = _flips(outcome)
        else:
            got = dict(outcome.metrics)
        for metric, value in got.items():
            table[metric][seed][name] = value
    for name, minuend in (("specificity", "flip_lesion_noise"), ("specificity_removal", "flip_removal")):
        for seed, flips in table.get(minuend, {}).items():
            control = table.get("flip_control", {}).get(seed, {})
            table[name][seed] = {e: flips[e] - control[e] for e in flips if e in control}
    add_areas(table, options)
    return table


def _without_image(outcome: Outcome, example: Example, before: Outcome | None) -> dict[str, float]:
    condition = outcome.condition
    score = math.nan if outcome.correct is None else float(outcome.correct)
    got = {f"accuracy_{condition}": score} if example.task in vqa.VQA_TASKS else {}
    if before is not None:
        got[f"changed_{condition}"] = float(plain(before.text) != plain(outcome.text))
    return got


def _flips(outcome: Outcome) -> dict[str, float]:
    """`flipped@20` of lesion_noise becomes `flip_lesion_noise@20`, and so on."""
    condition = outcome.condition
    got = {}
    for key, value in outcome.metrics.items():
        name, at, level = key.partition("@")
        if name == "flipped":
            got[f"flip_{condition}{at}{level}"] = value
        elif name == "margin" and not at:
            got[f"margin_{condition}"] = value
        elif name == "answer_changed":
            got[f"answer_changed_{condition}"] = value
        elif name == "margin_clean":
            got[name] = value
    if condition == "removal" and "flipped" in outcome.metrics and outcome.slots.get("evidence") == "twin":
        got["flip_twin"] = outcome.metrics["flipped"]
    return got
