"""`report.html`: one self-contained page made from the run folder alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from clinalign.errors import UsageError
from clinalign.pages.cards import example_cards, pair_cards
from clinalign.pages.figures import curves, smoothed
from clinalign.pages.headline import headline, shown_name
from clinalign.records import Example, Outcome, Pair
from clinalign.tables import read_table, write_text

HERE = Path(__file__).parent
CHARTS = (
    ("Loss", "loss", False),
    ("Reward accuracy", "rewards/accuracies", False),
    ("Reward margin", "rewards/margins", False),
    ("Chosen reward", "rewards/chosen", False),
    ("Gradient norm", "grad_norm", True),
    ("KL at spans, policy to reference", "kl/reverse", False),
)
CAUTIONS = {
    "phantom": "Images are procedurally drawn phantoms, not patients; the numbers say how the method behaves, "
    "nothing about medicine.",
    "embedded": "The embedded model knows drawn phantoms only: its answers to real images mean nothing for medicine. "
    "What this page shows is that real images, masks and DICOM pass through every stage unharmed.",
    "": "The numbers hold for this data set and this model; no claim about patient care follows from them.",
}


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, atomically: every section whose tables exist. Returns its path."""
    try:
        state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{folder / 'run.json'}: not valid JSON ({error}); run the recipe again with --resume"
        ) from error
    recipe = state["recipe"]
    systems = ["base", recipe["align"]["method"], *recipe["compare"]]
    examples = _table(folder / "examples.parquet", Example)
    outcomes = _table(folder / "outcomes.parquet", Outcome)
    pairs = _table(folder / "pairs.parquet", Pair)
    summary = _json(folder / "evaluation" / "summary.json")
    by_id = {example.id: example for example in examples}
    cases, filters = example_cards(by_id, outcomes, systems[:2], folder) if outcomes else ([], [])
    charts = _charts(folder, systems[1:])
    left_out = _quarantine(folder / "quarantine.jsonl")
    caution = "phantom" if recipe["data"]["source"] == "phantom" else recipe["model"]
    page = {
        "title": recipe["name"],
        "lead": _lead(examples, pairs, recipe),
        "caution": CAUTIONS.get(caution, CAUTIONS[""]),
        "headline": headline(summary, systems) if summary else None,
        "aligned": shown_name(systems[1]),
        "cases": cases,
        "filters": filters,
        "pairs": pair_cards(pairs, by_id, folder),
        "corpus": _corpus(_json(folder / "corpus.json")),
        "charts": charts,
        "chart_names": [shown_name(label) for label in systems[1:]],
        "warnings": _warnings(folder, systems[1:]),
        "quarantine": left_out,
        "quarantined": sum(row["count"] for row in left_out),
        "stages": _stages(state),
        "versions": ", ".join(f"{name} {version}" for name, version in state["versions"].items())
        + f"; Python {state['python']}, {state['machine']}; seed {state['seed']}",
        "recipe": yaml.safe_dump(recipe, sort_keys=False),
        "version": state["clinalign"],
        "css": Markup((HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup((HERE / "report.js").read_text(encoding="utf-8")),
    }
    page["sections"] = [
        (anchor, label)
        for anchor, label, there in (
            ("result", "Result", page["headline"]),
            ("examples", "Before and after", cases),
            ("edits", "What it learned from", page["pairs"]),
            ("training", "Training", charts),
            ("quarantine", "Left out", True),
            ("reproduce", "Reproduce", True),
        )
        if there
    ]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((HERE / "report.html.j2").read_text(encoding="utf-8"))
    write_text(folder / "report.html", template.render(page))
    return folder / "report.html"


def _lead(examples: list[Example], pairs: list[Pair], recipe: dict[str, Any]) -> str:
    splits = Counter(example.split for example in examples)
    right = sum(pair.was_correct for pair in pairs)
    text = f"Model {Path(recipe['model']).name}; "
    text += ", ".join(f"{count} {split or 'unsplit'} questions" for split, count in sorted(splits.items())) + "."
    if pairs:
        text += (
            f" {len(pairs)} preference pairs were made from the model's own answers"
            f" ({100 * right / len(pairs):.0f} % of them already right)."
        )
    return text


def _corpus(numbers: dict[str, Any] | None) -> list[dict[str, str]]:
    """The corpus numbers that fit a tile; the whole table is in corpus.json."""
    if not numbers:
        return []
    numbers = numbers | {"span_share": numbers.get("spans", {}).get("share_of_tokens")}
    tiles = (
        ("pairs", "pairs", "{:.0f}", 1, "Preference pairs"),
        ("already_correct_share", "already right", "{:.0f} %", 100, "Share of pairs whose own answer was right"),
        ("length_diff_mean", "words of length difference", "{:.2f}", 1, "Mean |chosen - rejected| in words"),
        (
            "within_two_words",
            "within two words",
            "{:.0f} %",
            100,
            "Share of pairs whose lengths differ by two words or less",
        ),
        (
            "edit_distance_mean",
            "word edit distance",
            "{:.2f}",
            1,
            "Levenshtein distance over the longer answer's words",
        ),
        ("span_share", "of tokens in spans", "{:.0f} %", 100, "Share of chosen tokens that are trained"),
        (
            "length_only_accuracy",
            "length-only classifier",
            "{:.0f} %",
            100,
            "How often length alone tells the sides apart; 50 is none",
        ),
    )
    return [
        {"label": label, "value": shown.format(scale * numbers[key]), "title": title}
        for key, label, shown, scale, title in tiles
        if numbers.get(key) is not None
    ]


def _charts(folder: Path, systems: list[str]) -> list[Markup]:
    logs = {label: _lines(home / "metrics.jsonl") for label, home in _homes(folder, systems)}
    charts = []
    for title, key, log in CHARTS:
        series = [
            (label, smoothed([(r["step"], r[key]) for r in rows if r.get(key) is not None]))
            for label, rows in logs.items()
        ]
        chart = curves(title, series, log=log)
        if chart:
            charts.append(chart)
    return charts


def _homes(folder: Path, systems: list[str]) -> list[tuple[str, Path]]:
    """Where each trained system's files live; the method of interest, which comes first, in the run folder itself."""
    return [(label, folder if place == 0 else folder / "compare" / label) for place, label in enumerate(systems)]


def _warnings(folder: Path, systems: list[str]) -> list[str]:
    found = [(label, _json(home / "train.json") or {}) for label, home in _homes(folder, systems)]
    return [f"{shown_name(label)}: {text}" for label, state in found for text in state.get("warnings", {}).values()]


def _quarantine(path: Path) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in _lines(path):
        groups[row["stage"], row["reason"]].append(row)
    return [
        {"stage": stage, "reason": reason, "count": len(rows), "example": _where(rows[0])}
        for (stage, reason), rows in groups.items()
    ]


def _where(row: dict[str, Any]) -> str:
    place = " ".join(filter(None, [Path(row["file"]).name, f"row {row['row']}" if row["row"] else "", row["id"]]))
    return f"{place}: {row['field']} {row['detail']}".strip(": ")


def _stages(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "seconds": stage["seconds"],
            "quarantined": stage["quarantined"],
            "outputs": stage["outputs"].items(),
        }
        for name, stage in state["stages"].items()
    ]


def _table(path: Path, kind: type[Any]) -> list[Any]:
    return read_table(path, kind) if path.is_file() else []


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
