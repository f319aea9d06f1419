"""Does a system look? Flips by noise level, attention by layer, image ablation, and the faults that these name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from scipy import stats

from clinalign.evaluation.metrics import FLIPS, LAYERED, TOPS, Kind, kind_of, patient
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.scores import Known, Table, averaged, interval, levels_of

CHANGED_AT_LEAST = 0.05
IGNORES_P = 0.01
ALWAYS = 0.95
BY_CHANCE = 0.6  # a good model may rightly say yes nearly always where nearly all truths are yes


def causal_summary(table: Table, known: Known, options: SummaryOptions) -> dict[str, Any]:
    """Flips by noise level, the areas under them, and changed answers, with intervals."""

    def shown(name: str, kind: Kind = "share") -> dict[str, Any]:
        return interval(averaged(table[name]), known, options, kind)

    rows: dict[float, dict[str, Any]] = defaultdict(dict)
    for key, condition in (("lesion", "lesion_noise"), ("control", "control")):
        for level, column in levels_of(table, f"flip_{condition}", options.sigma):
            rows[level][key] = shown(column)
    out: dict[str, Any] = {"levels": [{"sigma": level, **rows[level]} for level in sorted(rows)]} if rows else {}
    for key, name in (("area_lesion", "area_lesion_noise"), ("area_control", "area_control")):
        if name in table:
            out[key] = shown(name)
    if table.get("area_specificity"):
        out["area_specificity"] = shown("area_specificity", "difference")
    again = {c: {"changed": shown(f"changed_{c}")} for c in FLIPS if f"changed_{c}" in table}
    return out | ({"answers": again} if again else {})


def grounding_summary(table: Table, known: Known, options: SummaryOptions) -> dict[str, Any]:
    """By layer ratio, kl, js and pointing with intervals; `area`, and the share of span tokens in the top."""

    def shown(column: str, kind: Kind) -> dict[str, Any]:
        return interval(averaged(table[column]), known, options, kind)

    rows: dict[float, dict[str, Any]] = defaultdict(dict)
    for name in LAYERED:
        for layer, column in levels_of(table, f"attention_{name}"):
            rows[layer][name] = shown(column, kind_of(name))
    layers = [{"layer": int(layer), **rows[layer]} for layer in sorted(rows)]
    area = {"n": len(averaged(table["lesion_area"])), "layers": layers, "area": shown("lesion_area", "share")}
    if f"rewarded@{TOPS[0]}" not in table:
        return area
    tops = {str(top): shown(f"rewarded@{top}", "share") for top in TOPS}
    return area | {"spans": {"n": len(averaged(table[f"rewarded@{TOPS[0]}"])), "top": tops}}


def ablation_summary(table: Table, known: Known, condition: str, options: SummaryOptions) -> dict[str, Any]:
    """Does taking the image away change anything? `accuracy` and `changed` with intervals, the test and its verdict.

    `p` tests "at least 5 % of answers change" with patients as the trials, so that many questions about one image do
    not count as many images; below 0.01 the model is said to ignore the image.
    """
    changed: dict[str, bool] = defaultdict(bool)
    answers = averaged(table[f"changed_{condition}"])
    for name, value in answers.items():
        if known[name].images:
            changed[patient(known[name])] |= value > 0
    p = float(stats.binom.cdf(sum(changed.values()), len(changed), CHANGED_AT_LEAST)) if changed else None
    share = interval(answers, known, options, "share")
    return {
        "accuracy": interval(averaged(table.get(f"accuracy_{condition}", {})), known, options, "share"),
        "changed": share,
        "p": p,
        "ignores_image": p is not None and p < IGNORES_P,
        "verdict": _verdict(p, share),
    }


def _verdict(p: float | None, share: Mapping[str, Any]) -> str:
    """One of "ignores the image", "uses the image" and "cannot tell"."""
    if p is not None and p < IGNORES_P:
        return "ignores the image"
    sure = share["low"] is not None and share["low"] > CHANGED_AT_LEAST
    return "uses the image" if sure else "cannot tell"


def verdicts(metrics: Mapping[str, Any], ablations: Mapping[str, Any]) -> list[str]:
    """Sentences that name a fault which an accuracy alone would hide."""
    found = []
    for condition, shown in ablations.items():
        if shown["ignores_image"]:
            share, name = shown["changed"], condition.replace("_", " ")
            found.append(
                f"ignores the image: {100 * share['estimate']:.1f} % of answers change under {name} "
                f"(at least 5 % is rejected, p = {shown['p']:.2g}, {share['patients']} patients)"
            )
    rate, even = (metrics.get(name, {}).get("estimate") for name in ("yes_rate", "balanced_accuracy"))
    if rate is not None and even is not None and even < BY_CHANCE and not 1 - ALWAYS < rate < ALWAYS:
        word = "yes" if rate > 0.5 else "no"
        shares = f"yes to {100 * rate:.1f} % of the yes/no questions, balanced accuracy {100 * even:.1f} %"
        found.append(f"always says {word}: {shares}")
    return found
