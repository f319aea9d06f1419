"""The page's section of the suites: systems by suites with intervals and paired tests, and what each suite says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.pages.markup import p_value, points
from clinalign.pages.results import Summary, cell, known, shown_name

TITLES = {
    "hallucinogen": "Attacks (HALLUCINOGEN)",
    "s_chain": "Reasoning in steps (S-Chain)",
    "modality": "Text versus image",
    "causal": "Causal use of the image",
    "stages": "Which stage fails",
    "uncertainty": "Does it know when it is wrong?",
    "eh": "Eyes (EH-Benchmark)",
}
ATTACKS = ("identification", "localisation", "visual_context", "counterfactual")
STAGES = ("seeing", "knowing", "seeing and knowing", "reasoning")
BY_LABEL = (("f1", "macro-F1"), ("micro_f1", "micro-F1"), ("balanced_accuracy", "balanced"), ("auroc", "AUROC"))
ARMS = (("text alone", "no_image"), ("image alone", "no_text"), ("both", "clean"))
DETAILS: dict[str, tuple[str, list[tuple[str, tuple[str, ...]]]]] = {
    "hallucinogen": (
        "Right answers by attack, per cent; of things that are not there, what is missing to 100 is how often the "
        "attack works. An unclear answer is wrong.",
        [
            *((attack.replace("_", " "), (attack, "accuracy")) for attack in ATTACKS),
            *((f"{attack.replace('_', ' ')}, not there", (attack, "absent")) for attack in ATTACKS),
            ("says yes", ("all", "yes_rate")),
            ("unclear", ("all", "unclear_rate")),
        ],
    ),
    "s_chain": (
        "Per cent. Given: the class where the first right steps stand in the prompt.",
        [
            *((f"step {k}", ("steps", f"step_{k}")) for k in range(1, 5)),
            ("overlap of the boxes", ("steps", "iou")),
            ("macro-F1", ("macro_f1",)),
            *((f"given {k}", (f"step_given_{k}",)) for k in range(1, 5)),
            ("another's boxes", ("shuffled_boxes",)),
            ("form broken", ("malformed",)),
        ],
    ),
    "modality": (
        "Per cent. Interference: text alone minus both; gain: both minus both with another patient's image, of right "
        "answers. F1 over the labels, each alike (macro) or all counts in one (micro); AUROC: mean over the labels.",
        [
            *((arm, ("accuracy", where)) for arm, where in ARMS),
            ("interference", ("interference",)),
            ("gain", ("gain",)),
            *((f"{name}, {arm}", (key, where)) for key, name in BY_LABEL for arm, where in ARMS),
        ],
    ),
    "causal": (
        "Of right answers, per cent. CGR: yes turns to no without the evidence; UAR: unchanged under another patient's "
        "image of the same label; IS: unchanged where another place is masked alike.",
        [("CGR", ("cgr",)), ("UAR", ("uar",)), ("IS", ("is",)), ("verdict", ("verdict",))],
    ),
    "stages": (
        "Share of the errors by what mends them, per cent.",
        [("errors", ("errors",)), *((stage, ("shares", stage)) for stage in STAGES)],
    ),
    "uncertainty": (
        "Per cent. AUROC of right against wrong, 50 is chance; Brier score before and after calibration on split dev.",
        [
            ("AUROC, semantic entropy", ("auroc_entropy",)),
            ("AUROC, confidence", ("auroc_confidence",)),
            ("Brier", ("brier",)),
            ("Brier, calibrated", ("brier_calibrated",)),
        ],
    ),
}
"""Suite -> what its table says, and the columns: a label, and where in the suite's summary the number stands."""

EH_NOTE = (
    "Per cent, options shuffled: an item's class is the text of its right option; precision, recall and F1 are means "
    "over classes. Policies without an image: one letter always; the letter or the option most often right among "
    "other patients. Fixed order: as two of the published files list their options, where the letter is the grade."
)
EH_METRICS = ("accuracy", "precision", "recall", "f1", "unanswered")
Table = dict[str, Any]


def suites(summary: Summary | None, systems: Sequence[str]) -> dict[str, Any] | None:
    """`scores`, `tests` and a table a suite (`details`); None where no suite was asked."""
    found = (summary or {}).get("suites")
    if not found:
        return None
    there = list(dict.fromkeys(name for suite in found.values() for name in suite["systems"]))
    shown = [name for name in systems if name in there] + [name for name in there if name not in systems]
    return {
        "scores": _scores(found, shown, systems[1]),
        "tests": _tests(found, shown),
        "details": _details(found, shown),
    }


def _scores(found: Mapping[str, Any], shown: Sequence[str], method: str) -> Table:
    """Systems by suites; below each score the share that could not be read, where there is any."""
    columns = [
        {"label": TITLES[suite], "title": f"{one['headline']}; {one['n']} questions of {one['patients']} patients"}
        for suite, one in found.items()
    ]
    rows = []
    for name in shown:
        cells = []
        for suite in found.values():
            row = suite["systems"].get(name)
            score = cell(known(row["score"]) if row else None)
            if row and row["unparsable"]:
                score["interval"] += f"; {100 * row['unparsable']:.1f} unparsable"
            cells.append(score)
        rows.append({"label": shown_name(name), "kind": "main" if name == method else "other", "cells": cells})
    return {"columns": columns, "rows": rows}


def _tests(found: Mapping[str, Any], shown: Sequence[str]) -> list[dict[str, str]]:
    return [
        {
            "label": f"{TITLES[suite]}: {shown_name(name)} \u2212 base",
            "value": points(row["estimate"]),
            "interval": f"{points(row['low'])} to {points(row['high'])}",
            "p": p_value(row["p"]),
            "holm": p_value(row["p_adjusted"]),
        }
        for suite, one in found.items()
        for name in shown
        if (row := one["systems"].get(name, {}).get("difference"))
    ]


def _details(found: Mapping[str, Any], shown: Sequence[str]) -> list[Table]:
    tables = []
    for suite, one in found.items():
        there = {shown_name(name): one["details"][name] for name in shown if name in one["details"]}
        if suite == "eh":
            tables += _eh_tables(there)
            continue
        note, wanted = DETAILS[suite]
        columns = [(label, [_cell(details, path) for details in there.values()]) for label, path in wanted]
        columns = [(label, cells) for label, cells in columns if any(found["value"] != "–" for found in cells)]
        rows = [
            {"label": name, "kind": "other", "cells": [cells[n] for _, cells in columns]}
            for n, name in enumerate(there)
        ]
        heads = [{"label": label, "title": ""} for label, _ in columns]
        tables.append({"title": TITLES[suite], "note": note, "head": "System", "columns": heads, "rows": rows})
    return tables


def _eh_tables(there: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """A table a metric: systems, and below the accuracies policies without an image, by subclass."""
    tables: list[Table] = []
    policies = next(iter(there.values()), {})
    for metric in EH_METRICS:
        rows = {name: {group: row[metric] for group, row in of["groups"].items()} for name, of in there.items()}
        if metric == "accuracy":
            rows |= {name.replace("_", " "): of for name, of in policies["baselines"].items()}
            fixed = {name: of["fixed_order"] for name, of in there.items()}
            rows |= {f"{name}, fixed order": {g: row[metric] for g, row in of.items()} for name, of in fixed.items()}
            rows |= {f"{name.replace('_', ' ')}, fixed order": of for name, of in policies["legacy_baselines"].items()}
        groups = list(dict.fromkeys(group for row in rows.values() for group in row))
        tables.append({
            "title": f"{TITLES['eh']}: {'F1' if metric == 'f1' else metric}",
            "note": EH_NOTE if metric == "accuracy" else "",
            "head": "System",
            "columns": [{"label": group, "title": ""} for group in groups],
            "rows": [
                {"label": name, "kind": "other", "cells": [cell(known(row.get(group))) for group in groups]}
                for name, row in rows.items()
                if row
            ],
        })  # fmt: skip
    return tables


def _cell(details: Mapping[str, Any], path: Sequence[str]) -> dict[str, str]:
    """A number with its interval, a count, or a word, from a suite's summary."""
    value: Any = details
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return cell(known(value)) if value is None or isinstance(value, Mapping) else {"value": str(value), "interval": ""}
