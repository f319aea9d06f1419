"""What one worker does: the caches that all trainings share, one training, one system asked on one split.

A result lies in a file beside the key of all that it depends on, and is made again only where that key is another one:
a sweep that was killed anywhere goes on where it was. A worker has its own threads and loads the model anew for every
job, so no number depends on who else is at work, or on what was done before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import clinalign
from clinalign.errors import Diverged, RowError, UsageError
from clinalign.folder import load_model, model_hashes
from clinalign.measuring.options import DRIFT
from clinalign.progress import say
from clinalign.recipe import Recipe
from clinalign.records import Example, Measurement, Outcome, Pair
from clinalign.stages.names import teacher_hash
from clinalign.storage import (
    Journal,
    Quarantine,
    file_hash,
    key_of,
    named_files,
    read_state,
    read_table,
    write_json,
    write_table,
)

ADAPTER = "adapter"
BASE = "base"
SYSTEM = "system"
"""What a system is called in its own tables, whatever the sweep calls it."""
SUMMED = {"batch_size", "level", "resamples", "permutations", "legacy"}
"""Settings of an evaluation that neither answers nor measurements depend on."""
SERVED = {"concurrency", "timeout_s", "retries", "backoff_s", "max_wait_s", "price_in", "price_out"}
"""The same of the judge's endpoint."""
KEPT_AT_ONCE = 16


@dataclass(frozen=True)
class SweepFolder:
    """Where a sweep's files lie. `data`: the run folder with the examples of every split."""

    out: Path

    @property
    def data(self) -> Path:
        return self.out / "corpora" / "pairs"

    def cache(self, corpus: Path) -> Path:
        """What the trainings on one corpus share."""
        return self.out / "cache" / corpus.name

    def system(self, name: str) -> Path:
        """The folder of a training, or of the base."""
        return self.out / "systems" / name


@dataclass(frozen=True)
class Questions:
    """A system's questions: the examples of a split, how they are evaluated, or (`kept`) the loss on their answers."""

    split: str
    options: dict[str, Any]
    kept: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """The settings that answers and measurements depend on: with the others changed they are still the same."""
        found = {name: value for name, value in self.options.items() if name not in SUMMED}
        if "llm" in found:
            found["llm"] = {name: value for name, value in found["llm"].items() if name not in SERVED}
        return found

    @property
    def name(self) -> str:
        """The stem of the files: split and settings."""
        return f"{self.split}-{key_of([self.asked, self.kept])[:8]}"


@dataclass(frozen=True)
class Job:
    """One training with its askings, or the base's (`pairs` None). `recipe` is resolved, `align` as it is trained."""

    name: str
    out: Path
    recipe: dict[str, Any]
    seed: int
    pairs: Path | None = None
    questions: tuple[Questions, ...] = field(default=())

    @property
    def sweep(self) -> SweepFolder:
        return SweepFolder(self.out)

    @property
    def folder(self) -> Path:
        return self.sweep.system(self.name)


def results(job: Job, questions: Questions) -> tuple[list[Outcome], list[Measurement]]:
    """What a finished job found."""
    stem = job.folder / questions.name
    outcomes = [] if questions.kept else read_table(Path(f"{stem}.outcomes.parquet"), Outcome)
    return outcomes, read_table(Path(f"{stem}.measurements.parquet"), Measurement)


def seconds_of(job: Job) -> dict[str, float]:
    """What a finished job took: its steps alone, its training as a whole, its askings."""
    steps = 0.0
    if job.pairs is not None:
        from clinalign.training.metrics import read_metrics

        steps = sum(float(row["seconds"]) for row in read_metrics(job.folder / "metrics.jsonl"))
    found = [_known(job.folder / f"{one.name}.json") for one in job.questions]
    trained = _known(job.folder / "trained.json").get("seconds", 0.0)
    return {"steps": steps, "trainings": trained, "evaluations": sum(one.get("seconds", 0.0) for one in found)}


def used_pairs(job: Job) -> dict[str, int]:
    """How many of its pairs a finished training could use (`used` of `of`)."""
    return dict(_known(job.folder / "trained.json").get("pairs", {}))


def run_job(job: Job) -> str:
    """Trains and asks what is not done. Returns why the training diverged, or nothing. What a job is refused for names
    it."""
    recipe = Recipe.model_validate(job.recipe)
    try:
        trained = _trained(job, recipe) if job.pairs is not None else ""
    except Diverged as error:
        write_json(job.folder / "diverged.json", {"key": job_key(job, recipe), "what": str(error)})
        say(f"{job.name}: {error}")
        return str(error)
    except UsageError as error:
        raise UsageError(f"{job.name}: {error}") from error

    @cache
    def model() -> Any:
        return load_model(recipe, _warmed(job, recipe), job.folder / ADAPTER if job.pairs is not None else None)

    for questions in job.questions:
        _ask(job, recipe, questions, trained, model)
    return ""


def settings_key(align: dict[str, Any], *more: Any) -> str:
    """The key of a training's settings, without those that leave its numbers alone."""
    from clinalign.training.result import DOES_NOT_MATTER

    return key_of([{name: value for name, value in align.items() if name not in DOES_NOT_MATTER}, *more])


def job_key(job: Job, recipe: Recipe) -> str:
    """The key of all that a training depends on, done or not: settings and the files that they name, seed, pairs with
    their images, the model."""
    assert job.pairs is not None
    settings = recipe.align.dumped()
    table = file_hash(job.pairs / "corrupted_pairs.parquet")
    images = [file_hash(path) for path in sorted((job.pairs / "manifests").glob("*.sha256"))]
    named = [named_files(settings), teacher_hash(recipe.align)]
    given = [clinalign.__version__, named, job.seed, table, images, _model(job, recipe)]
    return settings_key(settings, *given)


def reading_key(jobs: Sequence[Job], questions: Sequence[Questions]) -> str:
    """The key of a reading of test, before it: every training and the base, what is asked of them, and of whom."""
    made: list[Any] = []
    for job in jobs:
        recipe = Recipe.model_validate(job.recipe)
        made.append(_model(job, recipe) if job.pairs is None else job_key(job, recipe))
    folder = jobs[0].sweep.data
    files = [file_hash(folder / "examples.parquet"), file_hash(folder / "manifests" / "ingest.sha256")]
    return key_of([made, [[one.split, one.asked, one.kept, named_files(one.asked)] for one in questions], files])


def _trained(job: Job, recipe: Recipe) -> str:
    """The key of a training that is done, done now where it is not. Raises `Diverged` where it has no end, at once
    where that is known."""
    assert job.pairs is not None
    key, done = job_key(job, recipe), _known(job.folder / "trained.json")
    if done.get("key") == key and done.get("adapter") == _adapter_hashes(job):
        return key
    lost = _known(job.folder / "diverged.json")
    if lost.get("key") == key:
        raise Diverged(str(lost["what"]))
    from clinalign.training import train

    began = time.monotonic()
    options = recipe.align.model_copy(update={"cache": str(job.sweep.cache(job.pairs)), "cache_features": True})
    quarantine = Quarantine(job.folder / "quarantine.jsonl")
    quarantine.rows = []
    pairs = read_table(job.pairs / "corrupted_pairs.parquet", Pair)
    train(
        load_model(recipe, _warmed(job, recipe)),
        pairs,
        job.pairs,
        options,
        job.folder,
        label=job.name,
        seed=job.seed,
        reference=recipe.reference,
        quarantine=quarantine,
    )
    quarantine.flush()
    # a training that was there, only not noted yet, took what it says itself
    took = round(max(time.monotonic() - began, float(_known(job.folder / "train.json").get("seconds", 0.0))), 2)
    usable = {"used": len(pairs) - len(quarantine.rows), "of": len(pairs)}
    done = {"key": key, "adapter": _adapter_hashes(job), "seconds": took, "pairs": usable}
    write_json(job.folder / "trained.json", done)
    return key


def _adapter_hashes(job: Job) -> dict[str, str]:
    return {path.name: file_hash(path) for path in sorted((job.folder / ADAPTER).glob("*.safetensors"))}


def _ask(job: Job, recipe: Recipe, questions: Questions, trained: str, load: Callable[[], Any]) -> None:
    """Outcomes and measurements of one split, unless they are there under the same key; `load` gives the model."""
    folder, stem = job.sweep.data, job.folder / questions.name
    base, drifts = Job(BASE, job.out, job.recipe, job.seed), questions.kept or questions.options.get("drift")
    said = _said(base, questions) if job.pairs is not None and not questions.kept else None
    examples = file_hash(folder / "examples.parquet")
    images = file_hash(folder / "manifests" / "ingest.sha256")
    definition = [DRIFT] if drifts else []
    made_of = [trained, _adapter_hashes(job), _model(job, recipe), named_files(questions.asked), *definition]
    key = key_of([clinalign.__version__, questions.asked, questions.kept, job.seed, said, examples, images, made_of])
    tables = [Path(f"{stem}.{kind}.parquet") for kind in ("outcomes", "measurements")]
    done = _known(Path(f"{stem}.json"))
    if done.get("key") == key and done.get("files") == [file_hash(path) for path in tables]:
        return
    from clinalign.measuring.measure import Results

    began = time.monotonic()
    vlm = load()
    chosen = [e for e in read_table(folder / "examples.parquet", Example) if e.split == questions.split]
    if questions.kept:
        found = Results([], _kept(vlm, chosen, folder, job, questions.name))
    else:
        found = _answered(vlm, chosen, job, questions, said)
    write_table(tables[0], found.outcomes, Outcome)
    write_table(tables[1], found.measurements, Measurement)
    took = round(time.monotonic() - began, 2)
    write_json(Path(f"{stem}.json"), {"key": key, "files": [file_hash(path) for path in tables], "seconds": took})


def _answered(vlm: Any, examples: list[Example], job: Job, questions: Questions, said: dict[str, str] | None) -> Any:
    from clinalign.measuring import evaluate
    from clinalign.measuring.asking import Entry
    from clinalign.measuring.options import EvaluationOptions

    options = EvaluationOptions.model_validate(questions.options)
    journal = Journal(job.folder / f"{questions.name}.journal", Entry)
    quarantine = _quarantine(job, questions.name)
    named: dict[str, Any] = {"system": SYSTEM, "seed": job.seed, "journal": journal, "quarantine": quarantine}
    found = evaluate(vlm, examples, job.sweep.data, options, base=said, **named)
    if quarantine.rows:
        quarantine.flush()
    journal.close()
    return found


def _kept(vlm: Any, examples: Sequence[Example], folder: Path, job: Job, name: str) -> list[Measurement]:
    """The loss on the answers of examples that the model can be asked; the others go to the quarantine."""
    from clinalign.measuring.asking import in_words, own_images, quarantined
    from clinalign.measuring.drift import truth_rows
    from clinalign.models.memory import Shrinking

    refused: dict[str, RowError] = {}
    asked: list[Example] = []
    for example in in_words(vlm, examples, folder):
        try:
            vlm.prompt_ids(example.prompt, own_images(example, folder))
            asked.append(example)
        except RowError as error:
            refused[example.id] = error
    if refused:
        quarantined(quarantine := _quarantine(job, name), "kept", examples, refused)
        quarantine.flush()
    call = partial(truth_rows, vlm, asked, folder)
    shrink = Shrinking("the batch of sweep.kept", "set dtype=bfloat16 or a smaller model")
    rows = shrink(lambda size: call(batch_size=size), KEPT_AT_ONCE)
    return [Measurement(e.id, SYSTEM, "greedy", job.seed, *row) for e in asked for row in rows[e.id]]


def _quarantine(job: Job, name: str) -> Quarantine:
    quarantine = Quarantine(job.folder / f"{name}.quarantine.jsonl")
    quarantine.rows = []
    return quarantine


def _said(base: Job, questions: Questions) -> dict[str, str]:
    outcomes, _ = results(base, questions)
    return {outcome.example_id: outcome.text for outcome in outcomes if outcome.condition == "clean"}


def _model(job: Job, recipe: Recipe) -> list[Any]:
    """What the model is made of: its files and its processor's, how it is loaded, its warm-up."""
    warmed = _warmed(job, recipe)
    warm = [file_hash(path) for path in sorted(warmed.glob("*.safetensors"))] if warmed is not None else []
    return [*model_hashes(recipe), recipe.reference, warm]


def _warmed(job: Job, recipe: Recipe) -> Path | None:
    return job.sweep.data / "warmup" / ADAPTER if recipe.warmup is not None else None


def _known(path: Path) -> dict[str, Any]:
    try:
        return read_state(path)
    except (FileNotFoundError, UsageError):
        return {}


def share(out: Path, corpus: Path, recipes: Sequence[dict[str, Any]]) -> float:
    """Fills the caches that all trainings on one corpus share. What a killed call left is thrown away, so that every
    number comes from the same batches. Returns the seconds it took when it was done."""
    from clinalign.training import fill_caches

    parsed = [Recipe.model_validate(values) for values in recipes]
    folder, base = SweepFolder(out).cache(corpus), Job(BASE, out, recipes[0], 0)
    done = folder / "done.json"
    settings = [recipe.align.dumped() for recipe in parsed]
    table = file_hash(corpus / "corrupted_pairs.parquet")
    key = key_of([clinalign.__version__, table, settings, named_files(settings), _model(base, parsed[0])])
    known = _known(done)
    if known.get("key") == key:
        return float(known["seconds"])
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    options = [recipe.align.model_copy(update={"cache": str(folder)}) for recipe in parsed]
    vlm = load_model(parsed[0], _warmed(base, parsed[0]))
    count = fill_caches(vlm, read_table(corpus / "corrupted_pairs.parquet", Pair), corpus, options)
    took = round(time.monotonic() - began, 2)
    say(f"{corpus.name}: {count} records of the reference in {took:.0f} s")
    write_json(done, {"key": key, "seconds": took})
    return took
