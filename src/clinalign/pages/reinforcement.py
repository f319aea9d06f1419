"""The page's section on reinforcement: every reward's curve, and reports before and after with findings marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.evaluation.reports import marked_report
from clinalign.pages.figures import curves
from clinalign.pages.provenance import curve_series
from clinalign.pages.results import shown_name
from clinalign.records import Example, Outcome

SHOWN = 8
"""Reports shown before and after."""
BESIDE = {"reward": "all rewards, weighted", "completions/mean_length": "tokens a report", "kl": "KL from the start",
          "entropy": "entropy a token"}  # fmt: skip
"""Column of a training's log -> title of its chart, beside those of the single rewards."""
Logs = Mapping[str, Sequence[Mapping[str, Any]]]


def reinforcement(logs: Logs, by_id: Mapping[str, Example], outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Charts and reports of the reinforced systems; None where there is none. `logs`: each system's rows."""
    policies = {label: rows for label, rows in logs.items() if any("reward" in row for row in rows)}
    if not policies:
        return None
    names = sorted({key for rows in policies.values() for row in rows for key in row if key.startswith("rewards/")})
    titles = {key: key.split("/")[1].replace("_", " ") for key in names if key.endswith("/mean")} | BESIDE
    charts = [curves(title, curve_series(policies, key)) for key, title in titles.items()]
    stages = {label: _stages(rows) for label, rows in policies.items()}
    return {
        "names": [shown_name(label) for label in policies],
        "stages": [f"{shown_name(label)}: {text}" for label, text in stages.items()],
        "charts": [chart for chart in charts if chart],
        "reports": _reports(next(iter(policies)), by_id, outcomes),
        "system": shown_name(next(iter(policies))),
    }


def _stages(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which steps were of which stage."""
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(str(row.get("stage", "")), []).append(int(row["step"]))
    return ", ".join(f"{stage} stage in steps {min(of)} to {max(of)}" for stage, of in numbers.items())


def _reports(system: str, by_id: Mapping[str, Example], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The first reports, by id, that the base and a system were both asked for; those that changed come first."""
    texts: dict[str, dict[str, str]] = {"base": {}, system: {}}
    for one in outcomes:
        if one.task == "report" and one.condition == "clean" and one.system in texts and one.example_id in by_id:
            texts[one.system].setdefault(one.example_id, one.text)
    both = sorted(texts["base"].keys() & texts[system].keys())
    both.sort(key=lambda name: texts["base"][name] == texts[system][name])
    return [
        {
            "question": by_id[name].question,
            "truth": by_id[name].full or by_id[name].answer,
            "rows": [(label, *marked_report(texts[of][name], by_id[name]))
                     for label, of in (("before", "base"), ("after", system))],
        }
        for name in both[:SHOWN]
    ]  # fmt: skip
