"""Trainings and evaluations as jobs: each result is a file named by its settings, so a killed study goes on.

A job's result depends on nothing but its own settings: every job loads the model anew, a worker has one thread, and the
reference cache of a set of pairs is filled in one go before any job reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from clinalign.errors import RowError
from clinalign.imaging.images import read_image
from clinalign.language.substitution import values_of
from clinalign.measuring import evaluate
from clinalign.measuring.evidence import can_flip, flip_rows, paired
from clinalign.measuring.measure import Results, limited
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import load_vlm
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.progress import say
from clinalign.records import Example, Measurement, Outcome
from clinalign.storage import Quarantine, read_table, write_json, write_table
from clinalign.training import train
from clinalign.training.batches import plan_for
from clinalign.training.encode import encode_pair
from clinalign.training.metrics import read_metrics
from clinalign.training.options import TrainOptions
from clinalign.training.reference import Reference
from studies.phantom.corpus import REFERENCE, Corpus, with_corruption

INPAINTED = "inpainted"
TRAINED = "trained.json"
FILL_BATCH = 16


@dataclass(frozen=True)
class Job:
    """One trained system, or the base itself (`options` None). `start` is the job whose adapter it goes on from."""

    pairs: str = ""
    options: dict[str, Any] | None = None
    seed: int = 0
    start: Job | None = None

    @property
    def name(self) -> str:
        """A folder name: method, seed and a hash of everything."""
        if self.options is None:
            return "base"
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.options['method']}-{self.seed}-{digest[:12]}"


@dataclass(frozen=True)
class Place:
    """Where a study works: its corpus, its folder of results, the model."""

    corpus: Corpus
    work: Path
    model: str

    def folder(self, job: Job) -> Path:
        """The results of one job."""
        return self.work / f"runs-{self.corpus.key[:12]}" / job.name

    def result(self, job: Job, measure: Measure | None) -> Path:
        """The file that says a job was measured, or without a measure that it was trained."""
        return self.folder(job) / (TRAINED if measure is None else measure.file)

    def results(self, job: Job, measure: Measure) -> Results:
        """The finished outcomes and measurements of a job."""
        file = self.result(job, measure)
        return Results(read_table(file, Outcome), read_table(measured_file(file), Measurement))

    def curve(self, job: Job) -> list[dict[str, Any]]:
        """Training metrics of a job, one row a step."""
        return read_metrics(self.folder(job) / "metrics.jsonl")


@dataclass(frozen=True)
class Measure:
    """One evaluation: its options, and whether margins are measured with the evidence taken away too."""

    options: EvaluationOptions
    flips: bool = False

    @property
    def file(self) -> str:
        """Named by what was measured."""
        digest = hashlib.sha256(self.options.model_dump_json().encode()).hexdigest()
        return f"{self.options.split}{'-flips' if self.flips else ''}-{digest[:8]}.parquet"


def run(place: Place, job: Job, measure: Measure | None) -> float:
    """Trains and evaluates what is not done yet (without a measure: trains); returns the seconds it took."""
    began = time.monotonic()
    folder = place.folder(job)
    if place.result(job, measure).is_file():
        return 0.0
    adapter = _trained(place, job) if job.options is not None else None
    if measure is None:
        return time.monotonic() - began
    vlm = load_vlm(place.model, adapter=adapter)
    found = results_of(vlm, place.corpus.examples(measure.options.split), place.corpus.folder, measure, job)
    write_table(measured_file(folder / measure.file), found.measurements, Measurement)
    write_table(folder / measure.file, found.outcomes, Outcome)
    return time.monotonic() - began


def measured_file(file: Path) -> Path:
    """Where the measurements lie beside a job's outcomes."""
    return file.with_name(f"measured-{file.name}")


def results_of(vlm: Any, examples: list[Example], images: Path, measure: Measure, job: Job) -> Results:
    """Clean answers, and with `flips` margins under noise, control, the exact counterfactual, and inpainting."""
    flips = measure.options.flips if measure.flips else []
    options = measure.options.model_copy(update={"flips": flips})
    found = evaluate(vlm, examples, images, options, system=job.name, seed=job.seed)
    if measure.flips:
        clean = {o.example_id: o for o in found.outcomes if o.condition == "clean"}
        found.measurements.extend(inpainted(vlm, examples, clean, images, options))
    return found


def inpainted(
    vlm: Any, examples: Sequence[Example], clean: dict[str, Outcome], images: Path, options: EvaluationOptions
) -> list[Measurement]:
    """Margins where the lesion is inpainted, of examples whose exact counterfactual is known as well."""
    flippable = limited([e for e in examples if can_flip(e) and e.id in clean], options.flip_limit)
    unknown = [replace(e, counterfactual="") for e in flippable]
    settings, choices = options.model_copy(update={"flips": ["counterfactual"]}), values_of(examples)
    out = []
    for start in range(0, len(unknown), options.batch_size):
        part = unknown[start : start + options.batch_size]
        pairs = {e.id: paired(vlm, e, clean[e.id].text, choices) for e in part}
        rows = flip_rows(vlm, part, pairs, images, settings, options.batch_size)
        named = {e.id: (clean[e.id].system, clean[e.id].decoder, clean[e.id].seed) for e in part}
        out += [Measurement(name, *named[name], *row) for name, found in rows.items() for row in found]
    return [one for one in out if one.condition == INPAINTED]


def _trained(place: Place, job: Job) -> Path:
    """The adapter folder of a job, trained where it is not there; earlier rounds first."""
    folder = place.folder(job)
    done = place.result(job, None)
    if not done.is_file():
        start = _trained(place, job.start) if job.start is not None else None
        vlm = load_vlm(place.model, adapter=start)
        options = TrainOptions(**(job.options or {}) | {"cache": str(_cache(place, job.pairs))})
        quarantine = Quarantine(folder / "quarantine.jsonl")
        pairs = place.corpus.pairs(job.pairs)
        result = train(
            vlm,
            pairs,
            place.corpus.folder,
            options,
            folder,
            label=job.name,
            seed=job.seed,
            reference="base",
            quarantine=quarantine,
        )
        left_out = quarantine.count()
        write_json(done, {"job": asdict(job), "steps": result.steps, "seconds": result.seconds, "left_out": left_out})
    return folder / "adapter"


def _cache(place: Place, pairs: str) -> Path:
    return place.work / f"reference-{place.corpus.key[:12]}" / pairs


def prepare(place: Place, names: Sequence[str], workers: int) -> None:
    """Draws v' and fills the reference cache for sets of pairs, side by side."""
    missing = [name for name in dict.fromkeys(names) if not _filled(place, name).is_file()]
    if workers == 0 or len(missing) < 2:
        for name in missing:
            fill_reference(place, name)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        list(pool.map(fill_reference, [place] * len(missing), missing))


def _filled(place: Place, name: str) -> Path:
    return _cache(place, name).with_suffix(".done")


def fill_reference(place: Place, name: str) -> None:
    """Computes the reference's numbers for a whole set of pairs in one go, for every method that will ask.

    A cache that a killed run left half full is thrown away, so that every number comes from the same batches.
    """
    cache, done = _cache(place, name), _filled(place, name)
    with_corruption(place.corpus, place.model, name)
    shutil.rmtree(cache, ignore_errors=True)
    vlm = load_vlm(place.model)
    features = Features(vlm, lambda key: read_image(place.corpus.folder / key))
    samples = []
    for pair in place.corpus.pairs(name):
        corrupted = pair.corrupted_images
        grids = [features.grid(key) for key in pair.images]
        others = None if corrupted is None else [features.grid(key) for key in corrupted]
        try:
            samples.append(encode_pair(vlm, pair, grids, others))
        except RowError:
            continue  # every training puts it into its own quarantine
    plan = plan_for(METHODS["dpo" if name == REFERENCE else "firempo"], LossCoefficients())
    say(f"reference of the {name} pairs")
    Reference(vlm, features, cache).fill(samples, plan, batch_size=FILL_BATCH)
    done.touch()


def start_worker() -> None:
    """What a worker starts with: one thread, and an end when the study is killed."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """A pool's worker whose parent was killed would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def run_all(
    place: Place,
    wanted: Sequence[tuple[Job, Measure | None]],
    label: str,
    workers: int,
    work: Callable[..., float] = run,
) -> None:
    """Runs what is missing, `workers` at a time (0: here), with a line and the time left after each."""
    files = {place.result(job, measure): (job, measure) for job, measure in wanted}
    missing = [w for file, w in files.items() if not file.is_file()]
    say(f"{label}: {len(files)} results, {len(missing)} to compute")
    if workers == 0:
        for number, (job, measure) in enumerate(missing, 1):
            work(place, job, measure)
            say(f"{label}: {number}/{len(missing)} {job.name}")
        return
    began = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        names: dict[Future[float], str] = {pool.submit(work, place, j, m): j.name for j, m in missing}
        for number, future in enumerate(as_completed(names), 1):
            try:
                seconds = future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            left = (time.monotonic() - began) / number * (len(missing) - number)
            say(f"{label}: {number}/{len(missing)} {names[future]} in {seconds:.0f} s, {left / 60:.1f} min left")
