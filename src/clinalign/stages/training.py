"""The stages that train: warm-up, alignment, distillation, reinforcement."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.processes import rank
from clinalign.progress import say
from clinalign.records import Answer, Example, Pair
from clinalign.stages.names import (
    adapter_files,
    adapter_of,
    places,
    stage_name,
    suffix,
    system_folder,
    table_of,
    teacher_hash,
    trained_files,
)
from clinalign.storage import atomic, atomic_folder, file_hash, iter_table, open_table, read_table, write_table


def warmup(run: Run) -> None:
    """The recipe's supervised warm-up, where it has one; its adapter is part of the model from then on."""
    options = run.recipe.warmup
    if options is None:
        if run.only == "warmup":
            raise UsageError("the recipe has no warm-up; set warmup={method: sft} or leave this stage out")
        return

    def work() -> list[Path]:
        from clinalign.measuring.asking import quarantined, targets_in_words
        from clinalign.training import train
        from clinalign.training.encode import truth_pairs

        examples = open_table(run.out / "examples.parquet", Example, lambda one: one.split == "align")
        vlm = run.load_base()
        spoken, refused = targets_in_words(vlm, examples, run.out)
        pairs = truth_pairs(spoken, vlm.tokenizer, vlm.end_id)
        seed, rows = run.recipe.seed, run.quarantine
        result = train(
            vlm, pairs, run.out, options, run.warmup_folder, label="warmup", seed=seed, quarantine=rows, stage="warmup"
        )
        quarantined(rows, "warmup", examples, refused)
        say(f"warm-up: {result.steps} steps in {result.seconds:.0f} s")
        return trained_files(run.warmup_folder)

    given = [options.dumped(), run.recipe.seed, teacher_hash(options)]
    inputs = [run.out / "examples.parquet", run.images_of("ingest")]
    run.stage("warmup", work, options=given, inputs=inputs, base=True, joint=("warmup", ()))


def align(run: Run, number: int) -> None:
    """Pairs into an adapter: the method of interest in every round, the systems under `compare` in the first."""
    for label in run.recipe.systems() if number == 0 else run.recipe.systems()[:1]:
        options = run.recipe.system(label)
        if options.distill is None and options.reinforce is None:
            train_system(run, number, label, "align")


def distill(run: Run, number: int) -> None:
    """The same for the systems that a teacher teaches beside their method."""
    labels = run.recipe.systems() if number == 0 else run.recipe.systems()[:1]
    distilled = [label for label in labels if run.recipe.system(label).distill is not None]
    if run.only == "distill" and number == 0 and not distilled:
        raise UsageError("the recipe distils nothing; set align.distill={} or `distill` in a system under `compare`")
    for label in distilled:
        train_system(run, number, label, "distill")


def reinforce(run: Run, number: int) -> None:
    """The systems that are reinforced: from the examples alone, no pair is read."""
    labels = run.recipe.systems() if number == 0 else run.recipe.systems()[:1]
    reinforced = [label for label in labels if run.recipe.system(label).reinforce is not None]
    if run.only == "reinforce" and number == 0 and not reinforced:
        raise UsageError(
            "the recipe reinforces nothing; set align.reinforce={} or `reinforce` in a system under `compare`"
        )
    for label in reinforced:
        reinforce_system(run, number, label)


def reinforce_system(run: Run, number: int, label: str) -> None:
    """One system's reinforcement on the questions of the align split."""
    options = run.recipe.system(label)
    folder = system_folder(run, label, number)

    def work() -> list[Path]:
        from clinalign.measuring.asking import quarantined, targets_in_words
        from clinalign.training import write_card
        from clinalign.training.reinforce import reinforce as train_policy

        examples = [e for e in read_table(run.out / "examples.parquet", Example) if e.split == "align"]
        vlm = run.load(adapter_of(run, number - 1))
        spoken, refused = targets_in_words(vlm, examples, run.out)
        seed, rows = run.recipe.seed, run.quarantine
        result = train_policy(vlm, spoken, run.out, options, folder, label=label, seed=seed, quarantine=rows)
        quarantined(rows, f"reinforce:{label}", examples, refused)
        say(f"{label}: {result.steps} steps in {result.seconds:.0f} s")
        if rank() == 0:
            write_card(folder / "adapter", places(run, folder / "adapter"))
        return trained_files(folder)

    given = [options.dumped(), run.recipe.seed, teacher_hash(options)]
    inputs = [run.out / "examples.parquet", run.images_of("ingest"), *adapter_files(adapter_of(run, number - 1))]
    name = stage_name(run, f"reinforce:{label}", number)
    run.stage(name, work, options=given, inputs=inputs, model=True, joint=("reinforce_system", (number, label)))


def train_system(run: Run, number: int, label: str, stage: str) -> None:
    """One system's training on the pairs of a round."""
    options = run.recipe.system(label)
    folder = system_folder(run, label, number)

    def work() -> list[Path]:
        from clinalign.training import train, write_card

        check_audit(run, number)
        pairs = open_table(table, Pair)
        vlm = run.load(adapter_of(run, number - 1))
        result = train(
            vlm,
            pairs,
            run.out,
            options,
            folder,
            label=label,
            seed=run.recipe.seed,
            reference=run.recipe.reference,
            quarantine=run.quarantine,
        )
        say(f"{label}: {result.steps} steps in {result.seconds:.0f} s")
        if rank() == 0:
            write_card(folder / "adapter", places(run, folder / "adapter"))
        return trained_files(folder)

    table = table_of(run, "corrupted_pairs", number)
    given = [options.dumped(), run.recipe.seed, run.recipe.reference, teacher_hash(options)]
    images = [run.images_of("ingest"), run.images_of(stage_name(run, "corrupt", number))]
    inputs = [table, *images, *adapter_files(adapter_of(run, number - 1))]
    name = stage_name(run, f"{stage}:{label}", number)
    joint = ("train_system", (number, label, stage))
    run.stage(name, work, options=given, inputs=inputs, model=True, joint=joint)


def check_audit(run: Run, number: int) -> None:
    """Refuses a corpus that failed its audit, unless the recipe says to go on."""
    path = run.out / f"corpus{suffix(run, number)}.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("audit", {}) if path.is_file() else {}
    if found.get("verdict") == "fail" and run.recipe.audit == "refuse":
        raise UsageError(f"{path}: the audit refuses these pairs ({found['reasons'][0]}); audit=go_on trains anyway")


def gather(run: Run) -> None:
    """After several rounds: all rounds' tables in one, and the last adapter, where a single round would put them."""
    if run.recipe.rounds == 1:
        return
    numbers = range(run.recipe.rounds)
    kinds: dict[str, type[Any]] = {"answers": Answer, "pairs": Pair, "corrupted_pairs": Pair}
    for table, kind in kinds.items():
        rows = (row for number in numbers for row in iter_table(table_of(run, table, number), kind))
        write_table(run.out / f"{table}.parquet", rows, kind)
    last = system_folder(run, run.recipe.align.label, numbers[-1])
    made = {path: run.out / path.relative_to(last) for path in trained_files(last)}
    if any(file_hash(path) != file_hash(copy) for path, copy in made.items()):
        with atomic_folder(run.out / "adapter", replace=True) as folder:
            shutil.copytree(last / "adapter", folder, dirs_exist_ok=True)
        for name in ("metrics.jsonl", "train.json"):
            with atomic(run.out / name) as copy:
                shutil.copyfile(last / name, copy)
