"""Does MEDALIGN help on phantoms? SFT, and SFT with each term and with both: same pairs, same budget, several seeds.

    python -m studies.distill --out distill.json --work build/distill-study

Accuracy on closed and open questions, flips of the own answer when the lesion is noised, and at the taught layer the
distance to the teacher's map, the attention on the lesion and its distance to the lesion's mask. Differences to plain
SFT are paired by question, clustered by patient, seeds averaged first; p by sign flips, Holm over the family of a
system's metrics. Every training and evaluation is a file under --work: a study that was stopped goes on. Settings are
tried on the dev split (`--split dev`); the test split is read once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clinalign
from clinalign.evaluation.scores import flipped, margins_of
from clinalign.evaluation.statistics import compare, holm, mean_interval, per_question
from clinalign.folder import Run
from clinalign.imaging.images import read_image, read_mask
from clinalign.measuring import evaluate
from clinalign.measuring.distillation import numbers_of, write_maps
from clinalign.measuring.measure import Results, limited
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import files_hash, load_vlm
from clinalign.pages.provenance import read_json
from clinalign.pages.tables import over
from clinalign.progress import say
from clinalign.recipe import load_recipe
from clinalign.records import Example, Pair
from clinalign.run import execute
from clinalign.storage import file_hash, key_of, read_table, write_json
from clinalign.training import train
from clinalign.training.distill import attention_maps
from clinalign.training.options import DistillOptions, TrainOptions

SYSTEMS: dict[str, tuple[float, float] | None] = {
    "base": None, "sft": None, "sft+vis": (1.0, 0.0), "sft+att": (0.0, 1.0), "sft+both": (1.0, 1.0),
}  # fmt: skip
"""Weights alpha and beta of each system's terms, as shares of --alpha and --beta."""
STAGES = ("ingest", "answer", "pair", "corrupt")
HIGHER = {"accuracy_closed": True, "accuracy_open": True, "flip_lesion": True, "to_teacher": False,
          "to_lesion": False, "ratio": True}  # fmt: skip
"""Whether more is better."""


RECIPES = {"embedded": ("phantom", []), "embedded2": ("demo", ["data.draw=6"])}
"""What each base is asked: a recipe, and what is changed in it (patients that no other study has)."""


def prepare(work: Path, model: str, patients: int, tested: int) -> Path:
    """Phantoms, the base's answers and the pairs made of them, once for all systems."""
    name, own = RECIPES[model]
    overrides = [f"data.splits={{align: {patients}, dev: {tested // 2}, test: {tested}}}", "audit=go_on", *own]
    for stage in STAGES:
        execute(Run(load_recipe(name, overrides), work / "corpus", resume=True), only=stage)
    return work / "corpus"


def job(name: str, seed: int, corpus: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures one system; values by metric and question. A result that is there is read back where it is
    one of the same settings, model, pairs and questions."""
    out = work / args.split / f"{name}-{seed}"
    file = out / "measured.json"
    began = time.monotonic()
    shares = SYSTEMS[name]
    taught = shares and looking(args).model_copy(
        update={"alpha": args.alpha * shares[0], "beta": args.beta * shares[1]}
    )
    options = TrainOptions(
        method="sft", max_steps=args.steps, batch=16, lr=args.lr, cache=str(work / "cache"), checkpoint_every=0,
        lora={"r": 16, "alpha": 32, "dropout": 0.0}, distill=taught or None,
    )  # fmt: skip
    chosen = EvaluationOptions(
        max_new_tokens=40, batch_size=64, flips=["lesion_noise"], flip_limit=args.flips, grounding_limit=1,
        calibration_limit=1, limit=args.limit,
    )  # fmt: skip
    trained = [] if name == "base" else [options.model_dump(mode="json", exclude={"cache"}), seed]
    tables = [file_hash(corpus / f"{table}.parquet") for table in ("corrupted_pairs", "examples")]
    made_of = [trained, chosen.model_dump(mode="json"), looking(args).model_dump(mode="json"), tables]
    key = key_of([clinalign.__version__, files_hash(args.model), *made_of])
    known = read_json(file) or {}
    if known.get("key") == key:
        return known
    vlm = load_vlm(args.model)
    if name != "base":
        train(vlm, read_table(corpus / "corrupted_pairs.parquet", Pair), corpus, options, out, label=name, seed=seed)
        vlm = load_vlm(args.model, adapter=out / "adapter")
    examples = [e for e in read_table(corpus / "examples.parquet", Example) if e.split == args.split]
    values = _answers(evaluate(vlm, examples, corpus, chosen, system=name, seed=seed), examples)
    looked = limited([e for e in examples if e.images and e.regions], args.limit)
    maps = attention_maps(vlm, looked, corpus, looking(args), cache=str(work / "cache"))
    for example, numbers in numbers_of(maps, looked, corpus).items():
        for metric, value in numbers.items():
            values.setdefault(metric, {})[example] = value
    write_json(file, values | {"seconds": round(time.monotonic() - began, 1), "key": key})
    return dict(json.loads(file.read_text()))


def looking(args: argparse.Namespace) -> DistillOptions:
    """The layer and the teacher, which has the base's name."""
    return DistillOptions(layers=args.layers, teacher=args.model)


def _answers(results: Results, examples: list[Example]) -> dict[str, Any]:
    tasks = {example.id: example.task for example in examples}
    values: dict[str, Any] = {}
    for outcome in results.outcomes:
        if outcome.condition == "clean" and outcome.correct is not None:
            values.setdefault(f"accuracy_{tasks[outcome.example_id]}", {})[outcome.example_id] = float(outcome.correct)
    margins = margins_of(results.measurements, EvaluationOptions().sigma)
    for condition, system, name in margins:
        if condition == "lesion_noise" and margins["clean", system, name] > 0:
            values.setdefault("flip_lesion", {})[name] = float(flipped(margins, condition, system, name))
    return values


def table(found: Mapping[str, list[dict[str, Any]]], patients: Mapping[str, str]) -> dict[str, Any]:
    """Means with intervals, and differences to plain SFT with p values, by system and metric."""
    result: dict[str, Any] = {}
    for name, seeds in found.items():
        rows: dict[str, Any] = {}
        for metric in (*HIGHER, "teacher_ratio", "mass"):
            share = metric.startswith(("accuracy", "flip"))
            ids = sorted(set().union(*(one.get(metric, {}) for one in [*seeds, *found["sft"]])))
            labels = [patients[i] for i in ids]
            ours, plain = (_matrix(group, metric, ids) for group in (seeds, found["sft"]))
            rows[metric] = {
                "mean": mean_interval(per_question(ours), labels, kind="share" if share else "mean").as_dict()
            }
            rows[metric]["seeds"] = [round(float(np.nanmean(row)), 4) for row in ours]
            if name != "sft" and metric in HIGHER:
                rows[metric]["difference"] = compare(ours, plain, labels).as_dict()
        tested = {m: row["difference"]["p"] for m, row in rows.items() if "difference" in row}
        for metric, p in holm(tested).items():
            rows[metric]["p_holm"] = p
        result[name] = rows
    return result


def _matrix(group: list[dict[str, Any]], metric: str, ids: list[str]) -> np.ndarray:
    return np.array([[one.get(metric, {}).get(i, np.nan) for i in ids] for one in group], float)


def pictures(corpus: Path, work: Path, args: argparse.Namespace, cache: str) -> Path:
    """Maps of teacher, base and the first seed's systems, as the page shows them."""
    examples = [e for e in read_table(corpus / "examples.parquet", Example) if e.split == args.split]
    examples = limited([e for e in examples if e.images and e.regions], 30)
    maps = {}
    for name in SYSTEMS:
        adapter = None if name == "base" else work / args.split / f"{name}-0" / "adapter"
        maps[name] = attention_maps(load_vlm(args.model, adapter=adapter), examples, corpus, looking(args), cache=cache)
    return write_maps(maps, examples, corpus, args.layers[0])


def sheet(corpus: Path, written: Path, out: Path) -> None:
    """One row an example: the image with its lesion outlined, the teacher's map, and each system's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = json.loads(written.read_text())["shown"]
    names = list(shown[0]["maps"])
    figure, axes = plt.subplots(len(shown), 1 + len(names), figsize=(1.5 * (1 + len(names)), 1.5 * len(shown)))
    for row, entry in zip(axes, shown, strict=True):
        image = read_image(corpus / entry["image"])
        row[0].imshow(image)
        row[0].contour(read_mask(corpus / entry["mask"]), levels=[0.5], colors="yellow", linewidths=1)
        for axis, name in zip(row[1:], names, strict=True):
            axis.imshow(over(image, read_image(corpus / entry["maps"][name])[..., 0]))
    for axis, title in zip(axes[0], ["image, lesion", "teacher", *names[1:]], strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--work", type=Path, default=Path("build/distill-study"), help="folder of partial results")
    parser.add_argument(
        "--model", default="embedded2", choices=tuple(RECIPES), help="the base; its teacher goes with it"
    )
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated, of: " + ", ".join(SYSTEMS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--layers", type=int, nargs="*", default=[2], help="taught layers, of four")
    parser.add_argument("--patients", type=int, default=250, help="training patients")
    parser.add_argument("--tested", type=int, default=90, help="patients of the split that is read")
    parser.add_argument("--flips", type=int, default=80, help="questions whose lesion is noised")
    parser.add_argument("--limit", type=int, default=180, help="questions answered, and maps compared")
    parser.add_argument("--only", type=int, help="do the jobs of one seed and stop, for several processes at a time")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    corpus = prepare(args.work, args.model, args.patients, args.tested)
    names = args.systems.split(",")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(args.seeds) if args.only is None else [args.only]:
        for name in names:
            if name != "base" or seed == 0:
                found[name].append(job(name, seed, corpus, args.work, args))
                say(f"{name}, seed {seed}: {found[name][-1]['seconds']} s")
    if args.only is not None:
        return
    people = {e.id: e.patient_id for e in read_table(corpus / "examples.parquet", Example)}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("out", "work")}
    write_json(args.out, {"settings": settings, "cores": os.cpu_count(), "systems": table(found, people)})
    if set(names) == set(SYSTEMS):
        written = pictures(corpus, args.work, args, str(args.work / "cache"))
        sheet(corpus, written, args.out.with_suffix(".png"))
    print(args.out)


if __name__ == "__main__":
    main()
