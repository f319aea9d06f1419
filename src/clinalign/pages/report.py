"""`report.html`: one self-contained page made from the run folder alone."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from clinalign.errors import UsageError
from clinalign.evaluation.cases import changes, counts_by_kind
from clinalign.evaluation.scores import margins_of
from clinalign.evaluation.suites import own_outcomes
from clinalign.evaluation.summary import main_system
from clinalign.pages import cards, pictures, provenance, results, suites, tables
from clinalign.pages.agent import agent_section
from clinalign.pages.plots import write_figures
from clinalign.pages.reinforcement import reinforcement
from clinalign.pages.results import headline, shown_name
from clinalign.records import Example, Measurement, Outcome, Pair
from clinalign.storage import by_id, open_table, read_state, sha256, write_text

HERE = Path(__file__).parent
_DRAWN = (
    "The embedded model knows drawn phantoms only: its answers to real images mean nothing for medicine. "
    "What this page shows is that real images, masks and DICOM pass through every stage unharmed."
)
CAUTIONS = {
    "phantom": "Images are procedurally drawn phantoms, not patients; the numbers say how the method behaves, "
    "nothing about medicine.",
    "embedded": _DRAWN,
    "embedded2": _DRAWN,
    "": "The numbers hold for this data set and this model; no claim about patient care follows from them.",
}
PRIVACY = {
    True: "This page holds images of patients and what was asked about them: treat it as you treat the images. "
    "`clinalign report RUN --no-images` writes it without them.",
    False: "Written without images. Questions and answers are those of the data.",
}
DECISIONS = "decisions.jsonl"


def write_report(folder: Path, *, pairs: int = cards.PAIRS_SHOWN, times: int = 1, images: bool = True) -> Path:
    """Writes `report.html` into a run folder, atomically: every section whose tables exist. Returns its path.

    The figures go to `evaluation/figures/` besides, as PNG and SVG. `pairs`: how many pairs are shown for review (0:
    all); `times`: how many times the usual number of examples. `images`: false leaves out every picture, so that the
    page may be sent where patients' images may not go.
    """
    state = read_state(folder / "run.json")
    if "align" not in state.get("recipe", {}) or "versions" not in state:
        raise UsageError(f"{folder / 'run.json'}: holds no recipe; run the recipe again with --resume")
    systems = ["base", main_system(state["recipe"]), *state["recipe"]["compare"]]
    summary = provenance.read_json(folder / "evaluation" / "summary.json")
    logs = provenance.training_logs(folder, systems[1:])
    with pictures.shown(images):
        page = _page(folder, state, systems, summary, logs, (pairs, times)) | {"privacy": PRIVACY[images]}
    write_figures(folder / "evaluation" / "figures", summary, systems, logs)
    write_text(folder / "report.html", _template().render(page))
    return folder / "report.html"


@cache
def _template() -> jinja2.Template:
    """The page's template, compiled once a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _page(
    folder: Path,
    state: Mapping[str, Any],
    systems: Sequence[str],
    summary: Mapping[str, Any] | None,
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    counts: tuple[int, int],
) -> dict[str, Any]:
    recipe = state["recipe"]
    examples = _table(folder / "examples.parquet", Example)
    pairs = _table(folder / "corrupted_pairs.parquet", Pair)
    outcomes = own_outcomes(_table(folder / "outcomes.parquet", Outcome))
    known = by_id(examples)
    left_out = provenance.quarantine(folder / "quarantine.jsonl")
    shown = cards.pair_cards(pairs, known, folder, counts[0])
    caution = "phantom" if recipe["data"]["source"].startswith("phantom") else recipe["model"]
    page = {
        "title": recipe["name"],
        "caveats": provenance.caveats(folder, systems[1:]),
        "lead": _lead(examples, pairs, recipe),
        "caution": CAUTIONS.get(caution, CAUTIONS[""]),
        "aligned": shown_name(systems[1]),
        **_results(summary, systems),
        **_examples(folder, known, outcomes, state, systems, summary, counts[1]),
        "suites": suites.suites(summary, systems),
        "agent": agent_section(folder / "agent", images=pictures.are_shown()),
        "distillation": tables.distillation(folder),
        "reinforcement": reinforcement(logs, known, outcomes),
        "pairs": shown,
        "pairs_rule": cards.shown_rule(len(shown), len(pairs)),
        "pair_filters": {field: cards.options(shown, field) for field in ("ekind", "corruption", "modality")},
        "corpus": provenance.corpus(provenance.read_json(folder / "corpus.json")),
        "applied": Counter(row["decision"] for row in provenance.json_lines(folder / DECISIONS, "decision")),
        "charts": provenance.charts(logs),
        "chart_names": [shown_name(label) for label in systems[1:]],
        "warnings": provenance.warnings(folder, systems[1:]),
        "quarantine": left_out,
        "quarantined": sum(row["count"] for row in left_out),
        **_reproduce(state, folder),
    }
    return page | {"sections": _sections(page)} | _assets()


def _results(summary: Mapping[str, Any] | None, systems: Sequence[str]) -> dict[str, Any]:
    if not summary:
        return {"headline": None, "fell": []}
    return {
        "headline": headline(summary, systems),
        "kinds": results.groups(summary, systems, "kinds"),
        "modalities": results.groups(summary, systems, "modalities"),
        "causal": results.causal(summary, systems),
        "ablations": results.ablations(summary, systems),
        "calibration": results.calibration(summary, systems),
        "fell": results.fell(summary, systems),
        "failures": results.failures(summary, systems),
        "more": tables.result_tables(summary, systems),
        "not_run": summary.get("external", {}).get("not_run", {}),
        "deeper": tables.evidence_tables(summary, systems),
    }


def _examples(
    folder: Path,
    by_id: Mapping[str, Example],
    outcomes: Sequence[Outcome],
    state: Mapping[str, Any],
    systems: Sequence[str],
    summary: Mapping[str, Any] | None,
    times: int,
) -> dict[str, Any]:
    if not outcomes:
        return {"cases": [], "worse": [], "worse_kinds": [], "changes": [], "facts": [], "rule": "", "filters": {}}
    measured = provenance.read_json(folder / "evaluation" / "pictures.json") or {}
    kinds = changes(by_id, outcomes, systems[:2])
    margins = margins_of(_table(folder / "measurements.parquet", Measurement), state["recipe"]["evaluate"]["sigma"])
    shown = cards.example_cards(by_id, outcomes, systems[:2], folder, measured, margins, times)
    counted = counts_by_kind(by_id, kinds)
    flips = [(value, _flip_label(value), count) for value, count in cards.options(shown, "flips")]
    return {
        "cases": [card for card in shown if card["kind"] != "broken"],
        "worse": [card for card in shown if card["kind"] == "broken"],
        "worse_kinds": counted,
        "changes": [(kind, cards.LABELS[kind], len(ids)) for kind, ids in kinds.items()] if shown else [],
        "facts": results.facts(summary, systems, kinds) if summary else [],
        "rule": cards.RULE,
        "filters": {field: cards.options(shown, field) for field in ("qkind", "modality")} | {"flips": flips},
    }


def _flip_label(value: str) -> str:
    condition, _, system = value.partition("/")
    return f"flips: {cards.CONDITIONS[condition]}, {shown_name(system)}"


def _sections(page: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = (
        ("result", "Result", page["headline"]),
        ("examples", "Before and after", page["cases"]),
        ("worse", "What got worse", page["changes"]),
        ("evidence", "Does it look?", page["headline"]),
        ("suites", "Suites", page["suites"]),
        ("agent", "Agent", page["agent"]),
        ("distillation", "Where the teacher looks", page["distillation"]),
        ("reinforcement", "What it was rewarded for", page["reinforcement"]),
        ("edits", "What it learned from", page["pairs"]),
        ("training", "Training", page["charts"]),
        ("quarantine", "Left out", True),
        ("reproduce", "Reproduce", True),
    )
    return [(anchor, label) for anchor, label, there in wanted if there]


def _reproduce(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    pairs = folder / "corrupted_pairs.parquet"
    return {
        "run": sha256(pairs)[:16] if pairs.is_file() else "none",
        "stages": provenance.stages(state),
        "versions": list(state["versions"].items()),
        "pins": [f"{name}=={v.partition('+')[0]}" for name, v in state["versions"].items() if v != "not installed"],
        "python": state["python"],
        "machine": state["machine"],
        "seed": state["seed"],
        "recipe": yaml.safe_dump(state["recipe"], sort_keys=False, allow_unicode=True),
        "version": state["clinalign"],
    }


def _assets() -> dict[str, Any]:
    """Style and script, and the script's hash: the page's policy lets no other script run and nothing be fetched."""
    script = (HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "css": Markup((HERE / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": digest,
    }


def _lead(examples: Sequence[Example], pairs: Sequence[Pair], recipe: Mapping[str, Any]) -> str:
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


def _table(path: Path, kind: type[Any]) -> Sequence[Any]:
    return open_table(path, kind) if path.is_file() else []
