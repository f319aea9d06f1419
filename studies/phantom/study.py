"""The phantom study: what alignment does to a model that sees but speaks from habit, with seeds and controls.

    python -m studies.phantom --out phantom.json            # up to an hour on two cores
    python -m studies.phantom --out phantom.json --quick    # one seed, default settings, up to ten minutes
    python -m studies.phantom --render phantom.json --page docs/phantom-study.md

Every result is kept below --work under a name made of its settings, so a killed study goes on where it was. What is
tried and how dev decides is written in settings.py; test is read once, with what dev chose.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from clinalign.measuring.measure import Results
from clinalign.progress import say
from clinalign.records import Example, Outcome
from clinalign.storage import write_json
from studies.phantom import corpus as C
from studies.phantom import page, settings, shift, tables
from studies.phantom.jobs import Job, Measure, Place, prepare, run_all
from studies.phantom.settings import Cell, Setting, Study

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "scipy")
UNITS = {
    "delta_overall, delta_overall_low, delta_overall_high": "points of accuracy, FiRe-MPO - base, 95 % by patient",
    "prior_conflicting_gain, prior_neutral_loss": "points of accuracy; a loss below zero is a gain",
    "style_preserved, probe_side, answer_side": "per cent",
    "collapse_reward_accuracy": "share",
    "collapse_words": "words an answer",
    "everything else": "shares between 0 and 1",
}
COLLAPSE = "dpo_reference_default"
QUESTIONS = "questions.json"
"""Every question's outcome of every run, below --work."""


class Phantoms:
    """One study under way: `runs` holds what was read of the test split, by system and seed."""

    def __init__(self, study: Study, place: Place, workers: int) -> None:
        self.study, self.place, self.workers = study, place, workers
        self.dev_examples = place.corpus.examples("dev")
        self.test_examples = place.corpus.examples("test")
        self.dev, self.test = Measure(study.measure("dev")), Measure(study.measure("test"), flips=True)
        self.dev_flips = Measure(study.measure("dev"), flips=True)
        self.base = Job()
        self.chosen: dict[str, dict[str, Any]] = {}
        self.grids: dict[str, list[dict[str, Any]]] = {}
        self.questions: dict[str, Any] = {}

    def job(self, label: str, setting: Setting, seed: int) -> Job:
        """The training of a system at a setting."""
        return Job(settings.CORPUS_OF.get(label, "noise"), self.study.options(setting), seed)

    def read(self, job: Job, measure: Measure) -> Results:
        """Finished outcomes and measurements."""
        return self.place.results(job, measure)

    def dev_shares(self, job: Job, measure: Measure) -> dict[str, float]:
        """Plain means of one run on dev."""
        base, sigma = self.read(self.base, self.dev_flips).outcomes, measure.options.sigma
        return tables.shares(self.read(job, measure), self.dev_examples, base, sigma)

    # The first grid

    def choose(self) -> None:
        """Every method's whole grid on dev, one seed, and what the rule picks; without a grid the default settings."""
        seed = self.study.seeds[0]
        tried = {label: settings.grid(label) if self.study.grid else [] for label in settings.TRAINED}
        wanted = [(self.job(label, s, seed), self.dev) for label, each in tried.items() for s in each]
        run_all(self.place, [(self.base, self.dev_flips), *wanted], "dev", self.workers)
        base = self.dev_shares(self.base, self.dev_flips)
        for label, each in tried.items():
            results = [self.dev_shares(self.job(label, s, seed), self.dev) for s in each]
            setting = each[settings.choose(results, base, each)] if each else settings.default(label)
            self.chosen[label] = setting
            names = [self.job(label, s, seed).name for s in each]
            rows = zip(each, names, results, strict=True)
            self.grids[label] = [{"setting": s, "run": name, "dev": r} for s, name, r in rows]
            say(f"{label}: {setting}")
        keep = [(self.base, self.dev_flips), *((job, self.dev) for job, _ in wanted)]
        self.questions["dev"] = self._every(dict(enumerate(keep)), self.dev_examples, self.dev_flips)

    def _every(self, jobs: dict[Any, tuple[Job, Measure]], examples: list[Example], base: Measure) -> dict[str, Any]:
        runs = {job.name: {job.seed: self.read(job, measure)} for job, measure in jobs.values()}
        return tables.every_question(runs, examples, self.read(self.base, base).outcomes, base.options.sigma)

    # The second grid

    def second_grid(self) -> dict[str, Any]:
        """The written-down cells on dev, the winner by the same rule; returns the table and the winner."""
        seed, base = self.study.seeds[0], self.dev_shares(self.base, self.dev_flips)
        cells = settings.first_cells(self.chosen["firempo"])
        jobs = self._cells(cells, seed)
        results = [self.dev_shares(job, self.dev_flips) for job in jobs]
        best = cells[settings.choose(results, base, [cell.setting for cell in cells])]
        steps = self.study.options(best.setting)["max_steps"]
        more = settings.second_cells(best, self.chosen["sft"], steps)
        cells, jobs = cells + more, jobs + self._cells(more, seed)
        results = [self.dev_shares(job, self.dev_flips) for job in jobs]
        winner = settings.choose(results, base, [cell.setting for cell in cells])
        say(f"second grid: {cells[winner].name}")
        self.winner = cells[winner]
        rows = [
            {"cell": c.name, "setting": c.setting, "v_prime": c.kind, "rounds": c.rounds, "run": job.name, "dev": r}
            for c, job, r in zip(cells, jobs, results, strict=True)
        ]
        every = {i: (job, self.dev_flips) for i, job in enumerate(jobs)}
        self.questions["second_grid"] = self._every(every, self.dev_examples, self.dev_flips)
        return {"cells": rows, "winner": cells[winner].name, "best_of_first_part": best.name}

    def _cells(self, cells: list[Cell], seed: int) -> list[Job]:
        """The jobs of some cells, run on dev with flips."""
        prepare(self.place, [cell.kind for cell in cells], self.workers)
        jobs = [self.cell_job(cell, seed) for cell in cells]
        run_all(self.place, [(job, self.dev_flips) for job in jobs], "second grid", self.workers)
        return jobs

    def cell_job(self, cell: Cell, seed: int) -> Job:
        """The last round's job of a cell; the rounds before it are trained, and their policy answers, on the way."""
        job = Job(cell.kind, self.study.options(cell.setting), seed)
        for number in range(1, cell.rounds):
            run_all(self.place, [(job, None)], f"round {number}", self.workers)
            name = f"{cell.kind}-round{number}-{job.name}"
            adapter = self.place.folder(job) / "adapter"
            C.another_round(self.place.corpus, self.place.model, adapter, name, cell.kind, number)
            prepare(self.place, [name], self.workers)
            job = Job(name, self.study.options(cell.setting), seed, start=job)
        return job

    # Test

    def systems(self) -> dict[str, list[Job]]:
        """What is read on test: every system's jobs, one a seed."""
        seeds = self.study.seeds
        jobs = {label: [self.job(label, self.chosen[label], s) for s in seeds] for label in settings.TRAINED}
        same = {"method": "dpo"} | {k: v for k, v in self.chosen["firempo"].items() if k in ("lr", "beta")}
        if same != self.chosen["dpo"]:
            self.chosen["dpo_same"] = same
            jobs["dpo_same"] = [self.job("dpo", same, s) for s in seeds]
        plain = settings.default("dpo_reference")
        if self.study.options(plain) != self.study.options(self.chosen["dpo_reference"]):
            self.chosen[COLLAPSE] = plain
            jobs[COLLAPSE] = [self.job("dpo_reference", plain, s) for s in seeds]
        if self.study.grid:
            self.chosen["anchored"] = self.winner.setting
            jobs["anchored"] = [self.cell_job(self.winner, s) for s in seeds]
            for label, kind in ((label, kind) for label, kind in settings.V_PRIME.items() if kind in settings.KINDS):
                self.chosen[label] = self.chosen["firempo"]
                jobs[label] = [Job(kind, self.study.options(self.chosen[label]), s) for s in seeds]
        return {"base": [self.base]} | jobs

    def shifted(self) -> tuple[dict[str, float], list[Outcome]]:
        """The logit shift: biases fitted on dev, outcomes on test."""
        from clinalign.models import load_vlm

        vlm, folder = load_vlm(self.place.model), self.place.corpus.folder
        on_dev, on_test = (
            {o.example_id: o for o in self.read(self.base, measure).outcomes if o.condition == "clean"}
            for measure in (self.dev_flips, self.test)
        )
        biases = shift.fit(shift.read_claims(vlm, self.dev_examples, on_dev, folder))
        claims = shift.read_claims(vlm, self.test_examples, on_test, folder)
        return biases, shift.apply(self.test_examples, on_test, claims, biases, "shift")

    def result(self) -> dict[str, Any]:
        """Runs what is missing and returns everything that the JSON holds."""
        prepare(self.place, ["noise", C.REFERENCE], self.workers)
        self.choose()
        second = self.second_grid() if self.study.grid else None
        systems = self.systems()
        run_all(self.place, [(job, self.test) for jobs in systems.values() for job in jobs], "test", self.workers)
        runs = {label: {job.seed: self.read(job, self.test) for job in jobs} for label, jobs in systems.items()}
        biases, shifted = self.shifted()
        runs["shift"] = {0: Results(shifted, [])}
        summary = tables.test_summary(runs, self.test_examples, self.test.options)
        self.questions["test"] = tables.every_question(runs, self.test_examples, runs["base"][0].outcomes)
        return self.report(summary, systems, second, biases, runs)

    def report(
        self,
        summary: dict[str, Any],
        systems: dict[str, list[Job]],
        second: dict[str, Any] | None,
        biases: dict[str, float],
        runs: dict[str, Any],
    ) -> dict[str, Any]:
        """Headline numbers, then the tables."""
        curves = {label: [self.place.curve(job) for job in jobs] for label, jobs in systems.items() if label != "base"}
        ranked = {label: each for label, each in curves.items() if label != "sft"}
        collapsed = COLLAPSE if COLLAPSE in curves else "dpo_reference"
        dynamics = {label: tables.collapse(each) for label, each in ranked.items()}
        if second is not None:
            several = {label: runs[label] for label in ("base", "anchored", "shift", "sft", "firempo", "dpo")}
            versus = tables.test_summary(several, self.test_examples, self.test.options)["comparisons"]
            second["test"] = [c for c in versus if c["a"] == "anchored" and c["metric"] in tables.COMPARED]
        table = {
            "units": UNITS,
            "study": self.description(),
            "chosen": self.chosen,
            "grids": self.grids,
            **tables.quoted(summary),
            "methods": summary["methods"],
            "n": summary["n"],
            "patients": summary["patients"],
            "second_grid": second,
            "dynamics": dynamics,
            "collapse_of": collapsed,
            "curves": {label: _thin(curves[label][0]) for label in ("dpo", collapsed)},
            "corpora": {name: self.place.corpus.numbers(name) for name in ("noise", C.REFERENCE)},
            "shift_biases": biases,
        }
        return tables.rounded(headline(summary, dynamics[collapsed], collapsed, probe(self.place.model)) | table)

    def description(self) -> dict[str, Any]:
        """What was run, so that the tables can be read without the script."""
        options = self.study.options({})
        kept = ("max_steps", "batch", "schedule", "tune", "lora", "lr", "beta", "alpha", "gamma", "lam")
        return {
            "name": self.study.name,
            "patients": dict(self.study.patients),
            "questions": {"dev": len(self.dev_examples), "test": len(self.test_examples)},
            "seeds": list(self.study.seeds),
            "defaults": {key: options[key] for key in kept},
            "rule": settings.RULE,
        }


def headline(summary: dict[str, Any], fall: dict[str, float], collapsed: str, seen: dict[str, Any]) -> dict[str, Any]:
    """The numbers that the study is judged by."""

    def points(metric: str, field: str = "estimate") -> float | None:
        found = tables.difference(summary, "firempo", "base", metric)
        return None if found is None or found[field] is None else 100 * found[field]

    lost = points("accuracy_prior_neutral")
    metrics = summary["systems"]["firempo"]["metrics"]
    return {
        "delta_overall": points("accuracy"),
        "delta_overall_low": points("accuracy", "low"),
        "delta_overall_high": points("accuracy", "high"),
        "prior_conflicting_gain": points("accuracy_prior_conflicting"),
        "prior_neutral_loss": None if lost is None else -lost,
        "style_preserved": 100 * metrics["style_preserved"]["estimate"],
        "collapse_reward_accuracy": fall["reward_accuracy"],
        "collapse_words": summary["systems"][collapsed]["metrics"]["words"]["estimate"],
        "collapse_gradient_norm_ratio": fall["gradient_norm_ratio"],
        "probe_side": seen.get("probe_side"),
        "answer_side": seen.get("answer_side"),
    }


def probe(model: str) -> dict[str, Any]:
    """What a linear reader of the image features tells of the side, and what the model says, in per cent, as measured
    when the embedded model was built (test patients); another model has no such file and gets none."""
    folder = Path(str(files("clinalign.models") / "embedded")) if model == "embedded" else Path(model)
    file = folder / "measurements.json"
    if not file.is_file():
        return {}
    measured = json.loads(file.read_text(encoding="utf-8"))
    said = measured["answers_test"]["slot side"]["accuracy"]
    return {"probe_side": 100 * measured["probe"]["test"]["side"], "answer_side": 100 * said}


def _thin(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = ("step", "rewards/accuracies", "rewards/margins", "grad_norm")
    return [{name: row.get(name) for name in kept} for row in curve]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="one seed, default settings, no second grid")
    parser.add_argument("--work", type=Path, default=Path("build/phantom-study"), help="folder of the kept results")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each; 0: this process")
    parser.add_argument("--model", default="embedded", help="'embedded', or a model folder")
    parser.add_argument("--render", type=Path, help="write the page of an existing JSON and do nothing else")
    parser.add_argument("--page", type=Path, help="write the docs page (Markdown, and its figure beside it) here")
    options = parser.parse_args(arguments)
    if options.render:
        page.write(json.loads(options.render.read_text(encoding="utf-8")), options.page or Path("phantom-study.md"))
        return 0
    if not options.out:
        parser.error("--out F is needed")
    result = study(settings.QUICK if options.quick else settings.FULL, options.work, options.model, options.workers)
    write_json(options.out, result)
    if options.page:
        page.write(result, options.page)
    print(json.dumps({key: result[key] for key in list(result)[:11]}, indent=1))
    return 0


def study(what: Study, work: Path, model: str, workers: int) -> dict[str, Any]:
    """One study from phantoms to numbers."""
    began = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(max(1, workers))
    place = Place(C.build(what, work, model), work, model)
    phantoms = Phantoms(what, place, workers)
    result = phantoms.result()
    write_json(work / QUESTIONS, phantoms.questions)
    result["machine"] = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
    result["versions"] = {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    result["seconds_this_call"] = round(time.monotonic() - began, 1)
    return result
