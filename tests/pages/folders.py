"""A small run folder made by hand, every text of it hostile: what the page is tested on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.evaluation import summarise
from clinalign.imaging.images import write_png
from clinalign.measuring.options import EvaluationOptions
from clinalign.recipe import load_recipe
from clinalign.records import Example, Measurement, Outcome, Pair, Region
from clinalign.storage import write_json, write_table

SCRIPT = "<script>window.hacked = 1</script>"
BREAK = '"><img src=x onerror="window.hacked=2">'
KINDS = ("side", "size", "presence")
CHANGES = ("fixed", "fixed", "broken", "wrong", "right", "unjudged")
VERDICTS = {
    "fixed": (False, True),
    "broken": (True, False),
    "wrong": (False, False),
    "right": (True, True),
    "unjudged": (True, None),
}


def examples(count: int = 18) -> list[Example]:
    """Test questions with boxes, masks, no region, two images or none; one align question a pair."""
    rows = []
    for n in range(count):
        region = Region("nodule & co", [4.0, 6.0, 10.0, 8.0]) if n % 3 else Region("mass", None, "masks/m.png")
        rows.append(
            Example(
                f"q/{n} {BREAK}" if n == 1 else f"q{n}",
                [] if n == 17 else ["images/wide.png", "images/tall.png"] if n == 4 else ["images/a.png"],
                f"Question {n} {BREAK if n == 1 else ''}: which side?",
                f"left {SCRIPT}" if n == 2 else "left",
                "open",
                [] if n in (5, 17) else [region],
                f"p{n // 2}",
                "MR\n<b>" if n % 2 else "CT",
                "t",
                "test" if n < 12 else "align",
                kind=KINDS[n % 3],
            )
        )
    return rows


def outcomes(rows: list[Example]) -> list[Outcome]:
    """Answers of two systems; number 3 is a script."""
    found = []
    for n, example in enumerate(e for e in rows if e.split == "test"):
        for system, correct in zip(("base", "firempo"), VERDICTS[CHANGES[n % len(CHANGES)]]):
            side = "left" if correct else "right"
            text = f"{SCRIPT} It is on the {side}." if n == 3 else f"The lesion {n} lies on the {side} side."
            made = Outcome(
                example.id, "open", "t", system, "greedy", 0, "clean", text, correct, "rules", "agrees", {}, {}, 7
            )
            found.append(made)
    return found


def measurements(rows: list[Example]) -> list[Measurement]:
    """Margins of every third question: two flips, and none under the control."""
    margins = {"clean": 2.5, "lesion_noise": -0.5, "control": 2.0, "counterfactual": -1.0}
    levels = {"lesion_noise": 45.0, "control": 45.0}
    return [
        Measurement(example.id, system, "greedy", 0, condition, "margin", margin, levels.get(condition))
        for example in [e for e in rows if e.split == "test"][::3]
        for system in ("base", "firempo")
        for condition, margin in margins.items()
    ]


def pairs(rows: list[Example]) -> list[Pair]:
    """One pair an align question; the second has markup in its texts."""
    made = []
    for n, example in enumerate(e for e in rows if e.split == "align"):
        tail = f" {SCRIPT}</article>" if n == 1 else "\u2028end."
        chosen, rejected = f"The lesion lies on the left side.{tail}", f"The lesion lies on the right side.{tail}"
        made.append(
            Pair(
                f"{example.id}-r0", example.id, 0, example.images, example.question, chosen, rejected,
                [[23, 27]], [[23, 28]], "rejected" if n % 2 else "chosen", [1, 2], [1, 2], not n % 2, KINDS[n % 3],
                "rule", ["images/b.png"], None, example.regions[0] if example.regions else None, "dataset", "noise",
                "lesion", 45.0,
            )
        )  # fmt: skip
    return made


def make_run(folder: Path, count: int = 18) -> Path:
    """Writes the run folder: tables, images, pictures, summary, curves, quarantine, run.json."""
    rows = examples(count)
    rng = np.random.default_rng(0)
    for name, shape in (("a", (32, 32, 3)), ("b", (32, 32, 3)), ("wide", (400, 800, 3)), ("tall", (90, 16, 3))):
        write_png(folder / "images" / f"{name}.png", rng.integers(0, 256, shape, dtype=np.uint8))
    mask = np.zeros((32, 32), bool)
    mask[8:20, 10:24] = True
    write_png(folder / "masks" / "m.png", mask)
    answers = outcomes(rows)
    options = EvaluationOptions(resamples=200, permutations=200)
    measured = measurements(rows)
    summary = summarise(answers, [e for e in rows if e.split == "test"], options, measurements=measured)
    write_table(folder / "examples.parquet", rows, Example)
    write_table(folder / "outcomes.parquet", answers, Outcome)
    write_table(folder / "measurements.parquet", measured, Measurement)
    write_table(folder / "corrupted_pairs.parquet", pairs(rows), Pair)
    write_json(folder / "evaluation" / "summary.json", summary | _more(summary))
    _pictures(folder, rows, answers)
    lines = [{"step": n, "loss": 1 / n, "rewards/accuracies": n / 20} for n in range(1, 21)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    left = {"stage": "pair", "file": "x.csv", "row": 3, "id": "q1", "field": "answer", "reason": "no_edit"}
    (folder / "quarantine.jsonl").write_text(json.dumps(left | {"detail": SCRIPT}) + "\n")
    audit = {"verdict": "warn", "reasons": [f"warn: length alone {SCRIPT}"]}
    write_json(
        folder / "corpus.json", {"pairs": 6, "already_correct_share": 0.5, "edit_kinds": {"side": 6}, "audit": audit}
    )
    write_json(folder / "run.json", _state())
    return folder


def _more(summary: dict[str, Any]) -> dict[str, Any]:
    """Image ablation and calibration, as the evaluation writes them where they are asked for."""
    share = {"estimate": 0.02, "low": 0.0, "high": 0.04, "n": 12, "patients": 6, "method": "Korn-Graubard"}
    bins = [{"low": 0.0, "high": 0.1, "n": 6, "confidence": 0.05, "observed": 0.2}]
    bins += [{"low": 0.9, "high": 1.0, "n": 6, "confidence": 0.95, "observed": 0.7}]
    systems = {name: dict(found) for name, found in summary["systems"].items()}
    ignored = {"accuracy": share, "changed": share, "p": 0.001, "ignores_image": True}
    systems["base"]["ablations"] = {"shuffled": ignored}
    layers = [
        {"layer": n, "ratio": share | {"estimate": 1.5}, "kl": share, "js": share, "pointing": share} for n in (0, 1)
    ]
    score = dict.fromkeys(("precision", "recall", "f1"), share)
    for found in systems.values():
        found["grounding"] = {
            "n": 12,
            "layers": layers,
            "area": share,
            "spans": {"n": 9, "top": {"5": share, "10": share}},
        }
        found["causal"] = {"levels": [{"sigma": s, "lesion": share, "control": share} for s in (15.0, 45.0)]}
        found["reports"] = {
            "n": 4,
            "micro": score,
            "macro": score,
            "hallucinated": share,
            "missed": share,
            "bleu": share,
        }
        found["suites"] = {name: {"n": 6, "metrics": {"accuracy": share}} for name in ("slake", "vqa-rad<i>")}
        found["legacy"] = {"closed_accuracy": 51.25}
        found["external"] = {"radgraph": share}
        found["verdicts"] = ["ignores the image: 2.0 % of answers change <b>"]
        found["calibration"] = {"n": 12, "ece": share, "brier": share, "auc": share, "bins": bins}
    external = {"ran": {"radeval": "2.2"}, "not_run": {"green": "needs a download"}}
    return {"systems": systems, "external": external}


def _pictures(folder: Path, rows: list[Example], answers: list[Outcome]) -> None:
    write_png(folder / "evaluation" / "images" / "x.png", np.full((16, 16), 90, np.uint8))
    write_png(folder / "evaluation" / "attention" / "x.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    clean = {(o.system, o.example_id): o.text for o in answers if o.condition == "clean"}
    names = ("base", "firempo")
    entries = {
        e.id: {
            "images": dict.fromkeys(("lesion_noise", "control", "counterfactual"), "evaluation/images/x.png"),
            "attention": dict.fromkeys(names, "evaluation/attention/x.png"),
            "peak": 2.0,
            "tokens": {name: [[0, 3, 1.2], [4, 10, -0.7], [10, len(clean[name, e.id]), 0.01]] for name in names},
        }
        for e in rows
        if e.split == "test" and e.images
    }
    write_json(folder / "evaluation" / "pictures.json", {"systems": list(names), "examples": entries})


def _state() -> dict[str, Any]:
    recipe = load_recipe("phantom", ["compare={}"]).model_dump(mode="json") | {"name": f"Run <b>& {BREAK}"}
    return {
        "stages": {
            "pair": {"key": "k", "inputs": {}, "outputs": {"pairs.parquet": "0" * 64}, "quarantined": 1, "seconds": 1.0}
        },
        "clinalign": "0",
        "python": "3",
        "machine": "x",
        "versions": {"torch": "2.13.0+cpu", "accelerate": "not installed"},
        "seed": 0,
        "recipe": recipe,
    }
