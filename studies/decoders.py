"""Decoders on phantoms, before and after alignment: does decoding still help a model that was aligned?

    clinalign run phantom --out phantom
    python -m studies.decoders --run phantom --limit 90 --out decoders.json --page docs/decoder-study.md

Takes a finished run of the recipe `phantom`: its test examples (phantom-1), the model `embedded` and the adapter that
FiRe-MPO trained. Every decoder runs at its default settings, nothing is tuned; CAI is calibrated on images of the
`align` split. Answers are given again with the lesion under noise, with a control patch under noise and with the lesion
truly removed. Phantom results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from clinalign.decoding.cai import calibrate
from clinalign.evaluation import summarise
from clinalign.imaging.images import read_image
from clinalign.measuring import evaluate
from clinalign.measuring.measure import limited
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import load_vlm
from clinalign.progress import say
from clinalign.records import Example, Outcome
from clinalign.storage import read_table, write_json, write_table, write_text

NAMES = ("greedy", "med_vcd", "vcd", "second", "imccd", "cai", "vhr", "pai", "m3id", "avisc", "damro")
CALIBRATION_IMAGES = 50
METRICS = ("accuracy", "accuracy_prior_conflicting", "yes_rate", "words", "style_preserved", "unparsable")
MODELS = {"base": None, "firempo": "adapter"}


def options_of(name: str, work: Path, model: str, limit: int) -> EvaluationOptions:
    """Clean answers, and answers with the evidence taken away."""
    decoder: Any = {"name": "cai", "calibration": str(work / f"cai-{model}.safetensors")} if name == "cai" else name
    return EvaluationOptions(decoder=decoder, flip_answers=True, limit=limit, calibration=False, batch_size=32)


def run(folder: Path, work: Path, limit: int) -> tuple[list[Outcome], list[Example]]:
    """Outcomes of every model and decoder, kept below `work` as they are finished."""
    examples = read_table(folder / "examples.parquet", Example)
    test = limited([e for e in examples if e.split == "test"], limit)
    outcomes: list[Outcome] = []
    for model, adapter in MODELS.items():
        vlm = load_vlm("embedded", adapter=folder / adapter if adapter else None)
        _calibrated(vlm, examples, folder, work / f"cai-{model}.safetensors")
        for name in NAMES:
            system = f"{model}, {name}"
            file = work / f"{model}-{name}.parquet"
            if not file.is_file():
                given = options_of(name, work, model, 0)
                write_table(file, evaluate(vlm, test, folder, given, system=system).outcomes, Outcome)
            outcomes += read_table(file, Outcome)
            say(f"{system}: done")
    return outcomes, test


def _calibrated(vlm: Any, examples: list[Example], folder: Path, file: Path) -> None:
    """CAI's file, from the first question about each of some images to learn from."""
    if file.is_file():
        return
    first: dict[str, Example] = {}
    for example in examples:
        if example.split == "align" and example.images:
            first.setdefault(example.images[0], example)
    chosen = list(first.values())[:CALIBRATION_IMAGES]
    pictures = [read_image(folder / example.images[0]) for example in chosen]
    calibrate(vlm, pictures, [example.question for example in chosen]).save(file)


def invented(outcomes: list[Outcome], examples: list[Example]) -> dict[str, float]:
    """Share of the findings asked for and not there that a system says are there, by system."""
    absent = {e.id for e in examples if e.slot == "presence" and e.answer.strip().lower().startswith("no")}
    asked = [o for o in outcomes if o.condition == "clean" and o.example_id in absent and o.correct is not None]
    systems = dict.fromkeys(o.system for o in outcomes)
    found = {s: [o.correct is False for o in asked if o.system == s] for s in systems}
    return {system: sum(values) / len(values) for system, values in found.items() if values}


def result(folder: Path, work: Path, limit: int) -> dict[str, Any]:
    """Everything the JSON holds: within each model all decoders against greedy; greedy before against after."""
    outcomes, test = run(folder, work, limit)
    tables = {}
    for model in MODELS:
        own = [o for o in outcomes if o.system.startswith(f"{model}, ")]
        chosen = EvaluationOptions(flip_answers=True)
        tables[model] = quoted(summarise(own, test, chosen, baseline=f"{model}, greedy", comparators=[]))
    best = [o for o in outcomes if o.system in ("base, greedy", "firempo, greedy")]
    tables["alignment"] = quoted(summarise(best, test, EvaluationOptions(), baseline="base, greedy"))
    return {
        "questions": len(test),
        "patients": len({e.patient_id for e in test}),
        "invented": invented(outcomes, test),
        "tables": tables,
        "torch": torch.__version__,
    }


def quoted(summary: dict[str, Any]) -> dict[str, Any]:
    """What the page reads of a summary: each system's metrics and changed answers, and the comparisons of accuracy."""
    systems = {
        label: {
            "metrics": {name: row["metrics"].get(name) for name in METRICS},
            "causal": {"answers": row["causal"].get("answers", {})},
        }
        for label, row in summary["systems"].items()
    }
    return {"systems": systems, "comparisons": [c for c in summary["comparisons"] if c["metric"] == "accuracy"]}


def percent(interval: dict[str, Any] | None, signed: bool = False) -> str:
    """An interval in per cent, or a dash."""
    if not interval or interval["estimate"] is None:
        return "-"
    form = "{:+.1f}" if signed else "{:.1f}"
    text = form.format(100 * interval["estimate"])
    ends = [interval.get("low"), interval.get("high")]
    return (
        text if None in ends or not signed else f"{text} [{form.format(100 * ends[0])}, {form.format(100 * ends[1])}]"
    )


def render(found: dict[str, Any]) -> str:
    """The page as Markdown; every number is read from the JSON."""
    head = ["decoder", "right, %", "minus greedy, points", "p (Holm)", "prior-conflicting", "invented findings",
            "yes-rate", "words", "style preserved", "unreadable"]  # fmt: skip
    parts = [
        "# Decoders on phantoms, before and after alignment\n\n"
        "Written by `python -m studies.decoders` from its JSON; no number was typed. "
        f"{found['questions']} test questions about {found['patients']} patients of phantom-1, the model `embedded` "
        "as it comes and with the adapter that FiRe-MPO trains in the recipe `phantom`, every decoder at its default "
        "settings, nothing tuned. *Invented findings*: share of the findings asked for and not there that are said to "
        "be there. What decoders cost is measured by `benchmarks/decoders.py`. Differences are paired by "
        "question, intervals 95 % by patient. These are drawings: nothing here is a clinical result.\n"
    ]
    for model, title in (("base", "Before alignment"), ("firempo", "After FiRe-MPO")):
        table = found["tables"][model]
        rows = []
        for system, row in table["systems"].items():
            metrics = row["metrics"]
            against = [c for c in table["comparisons"] if c["a"] == system and c["metric"] == "accuracy"]
            rows.append([
                system.partition(", ")[2], percent(metrics["accuracy"]),
                percent(against[0], signed=True) if against else "-",
                f"{against[0]['p_holm']:.4f}" if against and against[0]["p_holm"] is not None else "-",
                percent(metrics.get("accuracy_prior_conflicting")),
                f"{100 * found['invented'][system]:.1f}" if system in found["invented"] else "-",
                percent(metrics.get("yes_rate")), f"{metrics['words']['estimate']:.1f}",
                percent(metrics.get("style_preserved")), percent(metrics.get("unparsable")),
            ])  # fmt: skip
        parts.append(f"## {title}\n{markdown(head, rows)}\n{verdict(table, model)}\n{changed(table)}")
    aligned = [c for c in found["tables"]["alignment"]["comparisons"] if c["metric"] == "accuracy"][0]
    parts.append(
        f"## For comparison\nAlignment itself, greedy before and after: {percent(aligned, signed=True)} points.\n"
    )
    return "\n".join(parts)


def verdict(table: dict[str, Any], model: str) -> str:
    """One line: which decoders the test tells apart from greedy."""
    tested = [c for c in table["comparisons"] if c["metric"] == "accuracy" and c["p_holm"] is not None]
    better = [c["a"].partition(", ")[2] for c in tested if c["p_holm"] < 0.05 and c["estimate"] > 0]
    worse = [c["a"].partition(", ")[2] for c in tested if c["p_holm"] < 0.05 and c["estimate"] < 0]
    return f"Better than greedy after correction: {', '.join(better) or 'none'}. Worse: {', '.join(worse) or 'none'}.\n"


def changed(table: dict[str, Any]) -> str:
    """Answers that change when the evidence goes."""
    conditions = ("lesion_noise", "control", "counterfactual")
    rows = []
    for system, row in table["systems"].items():
        shown = row["causal"].get("answers", {})
        cells = [percent(shown.get(condition, {}).get("changed")) for condition in conditions]
        rows.append([system.partition(", ")[2], *cells])
    head = ["decoder", "noise in the lesion", "noise beside it", "lesion removed"]
    return f"Answers whose claim changes, %:\n{markdown(head, rows)}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run of the recipe phantom")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes, or lies when only rendering")
    parser.add_argument("--work", type=Path, default=Path("build/decoder-study"), help="folder of the kept results")
    parser.add_argument("--limit", type=int, default=300, help="most questions, whole patients")
    parser.add_argument("--page", type=Path, help="write the docs page here")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.run:
        options.work.mkdir(parents=True, exist_ok=True)
        write_json(options.out, result(options.run, options.work, options.limit))
    if options.page:
        write_text(options.page, render(json.loads(options.out.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
