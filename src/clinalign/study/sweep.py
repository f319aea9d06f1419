"""`clinalign sweep`: settings tried on dev, one chosen for each system by the written rule, test read once, one page.

    corpora/pairs/      a run folder: examples, the base's own answers, pairs; corpora/KEY/ where `pair`, `corrupt` vary
    cache/              reference values and image features, computed once for all trainings
    systems/NAME/       one training a setting and seed, and what it answered; systems/base/
    sweep.json          what was chosen, and every reading of test
    study.json          the tables; the same whoever worked side by side and whatever was killed
    costs.json          seconds
    study.html          the page

Stages, trainings and measurements are those of a run; here is only their order.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import clinalign
from clinalign.errors import UsageError
from clinalign.evaluation.options import SummaryOptions
from clinalign.folder import Run
from clinalign.preflight import preflight, refuse
from clinalign.progress import say
from clinalign.recipe import Recipe
from clinalign.records import Example, Pair
from clinalign.run import execute
from clinalign.stages.training import check_audit
from clinalign.storage import Lock, key_of, read_state, read_table, write_json
from clinalign.study.jobs import (
    BASE,
    Job,
    Pool,
    Questions,
    SweepFolder,
    results,
    run_job,
    seconds_of,
    share,
    used_pairs,
)
from clinalign.study.options import SweepOptions
from clinalign.study.settings import Setting, check_measured, findings_of, matched, ranked, rungs, scaled, settings_of
from clinalign.study.tables import dev_rows, kept_summary, test_summary, with_frontier

STATE = "sweep.json"
STAGES = ("ingest", "warmup", "answer", "pair", "corrupt")
QUIET = {"flips": [], "ablations": [], "suites": [], "grounding": False, "calibration": False, "pictures": False}
"""Of an evaluation what only the reading of test needs."""


@dataclass
class Sweep:
    """One sweep under way."""

    recipe: Recipe
    folder: SweepFolder
    options: SweepOptions
    settings: list[Setting]
    pool: Pool
    state: dict[str, Any]
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each matched system the metric and limit that it was matched at, and whether a setting met it."""

    def job(self, setting: Setting, seed: int, share_of_steps: float = 1.0, questions: Sequence[Questions] = ()) -> Job:
        """A setting's training at a share of its steps."""
        align = scaled(setting.recipe.align, share_of_steps)
        resolved = setting.recipe.model_copy(update={"align": align, "sweep": None, "compare": {}})
        values = resolved.model_dump(mode="json")
        stem = key_of([values["align"], setting.corpus])[:10]
        name = f"{setting.system}-{stem}-s{seed}"
        return Job(name, self.folder.out, values, seed, self.corpus(setting), tuple(questions))

    def base(self, questions: Sequence[Questions]) -> Job:
        values = self.recipe.model_copy(update={"sweep": None, "compare": {}}).model_dump(mode="json")
        return Job(BASE, self.folder.out, values, self.recipe.seed, None, tuple(questions))

    def corpus(self, setting: Setting) -> Path:
        """The run folder that has a setting's pairs."""
        own = Setting("", {}, self.recipe).corpus == setting.corpus
        return self.folder.data if own else self.folder.out / "corpora" / setting.corpus[:12]

    def examples(self, split: str) -> list[Example]:
        return [e for e in read_table(self.folder.data / "examples.parquet", Example) if e.split == split]

    @property
    def dev(self) -> Questions:
        own = self.recipe.evaluate.model_dump(mode="json") | QUIET
        return Questions(self.options.dev, own | {"split": self.options.dev, "drift": True})

    def tests(self) -> list[Questions]:
        """What is asked once: the first split in full, the others without interventions; then the other tasks."""
        own = self.recipe.evaluate.model_dump(mode="json") | {"pictures": False, "suites": [], "drift": True}
        first, *others = self.options.tests
        found = [Questions(first, own | {"split": first})]
        found += [
            Questions(split, own | QUIET | {"split": split, "calibration": own["calibration"]}) for split in others
        ]
        return found + ([Questions(self.options.kept, {}, kept=True)] if self.options.kept else [])

    def summary_options(self) -> SummaryOptions:
        own = self.recipe.evaluate.model_dump(include=set(SummaryOptions.model_fields))
        return SummaryOptions.model_validate(own | {"legacy": False})

    # In order

    def pairs(self) -> dict[str, int]:
        """Every corpus: examples, answers and pairs once, and again only what a setting's own keys change."""
        counts = {}
        for setting in [Setting("", {}, self.recipe), *self.settings]:
            folder = self.corpus(setting)
            if folder.name in counts:
                continue
            if folder != self.folder.data and not folder.exists():
                ignored = shutil.ignore_patterns(".lock", "*.damaged-*")
                shutil.copytree(self.folder.data, folder.with_name(f".{folder.name}.part"), ignore=ignored)
                folder.with_name(f".{folder.name}.part").rename(folder)
            alone = {"align": self.recipe.align, "compare": {}, "sweep": None}
            own = setting.recipe.model_copy(update=alone)
            for stage in STAGES:
                if (stage, own.warmup) != ("warmup", None) and (stage, own.pair.editor) != ("answer", "dataset"):
                    execute(Run(own, folder, resume=True), only=stage)
            with (run := Run(own, folder, resume=True)).lock:
                check_audit(run, 0)
            counts[folder.name] = len(read_table(folder / "corrupted_pairs.parquet", Pair))
        questions = [self.options.dev, *self.options.tests, *filter(None, [self.options.kept])]
        there = {e.split for e in read_table(self.folder.data / "examples.parquet", Example)}
        missing = [split for split in questions if split not in there]
        if missing:
            raise UsageError(
                f"sweep: no example has split '{missing[0]}'; there are {', '.join(sorted(there))}: add it to "
                "data.splits, or name another one"
            )
        return counts

    def shared(self) -> float:
        """References and features of every corpus, before any training reads them."""
        groups: dict[Path, list[dict[str, Any]]] = {}
        for setting in self.settings:
            groups.setdefault(self.corpus(setting), []).append(self.job(setting, 0).recipe)
        calls = [(self.folder.out, folder, recipes) for folder, recipes in groups.items()]
        return math.fsum(self.pool.each(share, calls, "shared"))

    def choose(self) -> tuple[list[dict[str, Any]], dict[str, Setting], list[Job]]:
        """The table of settings on dev, each system's choice, the best system's first, and all trainings."""
        base, rule = self.base([self.dev]), self.options.rule
        self.pool.each(run_job, [(base,)], "base")
        seeds = self.options.seeds[: self.options.dev_seeds]
        examples, jobs = self.examples(self.options.dev), [base]
        rows: list[dict[str, Any]] = []
        left = list(self.settings)
        most = max(sum(s.system == one.system for s in left) for one in left)
        for share_of_steps in (steps := rungs(most, self.options.halving)):
            tried = {s.name: [self.job(s, seed, share_of_steps, [self.dev]) for seed in seeds] for s in left}
            flat = [job for each in tried.values() for job in each]
            self.pool.each(run_job, [(job,) for job in flat], f"dev, {share_of_steps:.0%} of the steps")
            found = {name: [results(job, self.dev) for job in each] for name, each in tried.items()}
            means = dev_rows(found, [results(base, self.dev)], examples)
            jobs += flat
            rows = [row for row in rows if row["name"] not in tried]
            rows += [self._row(s, share_of_steps, means[s.name], tried[s.name]) for s in left]
            by_system = {s.system: [one for one in left if one.system == s.system] for s in left}
            check_measured([means[s.name] for s in left], rule)
            order = {name: ranked([means[s.name] for s in each], rule) for name, each in by_system.items()}
            if share_of_steps == steps[-1]:
                chosen = {name: by_system[name][at[0]] for name, at in order.items()}
                break
            left = [by_system[name][i] for name, at in order.items() for i in sorted(self._going_on(at))]
        first = ranked([means[s.name] for s in chosen.values()], rule)
        names = [list(chosen)[i] for i in first]
        names.sort(key=lambda name: name != self.options.first)  # the others stay in the order of dev
        ordered = {name: chosen[name] for name in names}
        for name in self.options.matched:
            tried_means = [means[s.name] for s in by_system[name]]
            limit = means[ordered[names[0]].name].get(rule.then)
            at, met = matched(tried_means, rule, -math.inf if limit is None else limit)
            ordered[f"{name}_matched"] = by_system[name][at]
            self.limits[f"{name}_matched"] = {"metric": rule.then, "limit": limit, "met": met}
        rows = [{"name": BASE, "system": BASE, "keys": {}, "steps": 0.0, "runs": [], "means": means[BASE]}, *rows]
        for row in rows:
            row["chosen"] = any(row["name"] == s.name for s in ordered.values())
        with_frontier(rows, rule.metric)
        return rows, ordered, jobs

    def _going_on(self, order: Sequence[int]) -> Sequence[int]:
        """Of a system's settings, the best first, those that successive halving trains on."""
        return order[: -(-len(order) // self.options.halving)]

    def _row(self, setting: Setting, steps: float, means: Mapping[str, float], runs: Sequence[Job]) -> dict[str, Any]:
        keys = dict(setting.keys)
        names = [job.name for job in runs]
        row = {"name": setting.name, "system": setting.system, "keys": keys, "steps": steps, "runs": names}
        return row | {"means": dict(means), "pairs": used_pairs(runs[0])}

    def read_test(self, chosen: Mapping[str, Setting], force: bool) -> tuple[dict[str, Any], list[Job]]:
        """Test with what dev chose: all seeds. Raises `UsageError` where it was read before with another choice."""
        questions = self.tests()
        base = self.base(questions)
        jobs = {name: [self.job(s, seed, 1.0, questions) for seed in self.options.seeds] for name, s in chosen.items()}
        names = [[job.name for job in each] for each in jobs.values()]
        self._note_reading(
            key_of([names, [one.name for one in questions], self.recipe.data.model_dump(mode="json")]), force
        )
        self.pool.each(run_job, [(replace(base, questions=tuple(questions)),)], "base on test")
        once = {job.name: job for each in jobs.values() for job in each}  # a matched setting may be the chosen one
        self.pool.each(run_job, [(job,) for job in once.values()], "test")
        summaries: dict[str, Any] = {}
        for one in questions:
            examples = self.examples(one.split)
            systems = {name: [results(job, one) for job in each] for name, each in jobs.items()}
            found = [results(base, one)]
            summarised = kept_summary if one.kept else test_summary
            summaries[one.split] = summarised(systems, found, examples, self.summary_options())
        return summaries, [base, *(job for each in jobs.values() for job in each)]

    def _note_reading(self, key: str, force: bool) -> None:
        """Writes down that test is read, before it is."""
        readings = self.state.setdefault("readings", [])
        if key in readings:
            return
        if readings and not force:
            raise UsageError(
                f"{self.folder.out}: test was read already, with another choice; what is changed after that is chosen "
                "by test. Draw new data, or add --force, and the page will say how often it was read"
            )
        readings.append(key)
        write_json(self.folder.out / STATE, self.state)


def sweep(recipe: Recipe, out: Path, *, resume: bool = False, force: bool = False, file: str = "recipe") -> Path:
    """Runs a recipe's sweep into the folder `out` and returns the page. `resume` goes on with what is there; `force`
    reads test again after settings were changed. Raises `UsageError`."""
    options = recipe.sweep or SweepOptions()
    settings = settings_of(recipe)
    if recipe.rounds > 1:
        raise UsageError("sweep: rounds after the first have pairs of their own for every setting; set rounds to 1")
    with Lock(_opened(out, resume)):
        state = _state(out)
        findings = preflight(recipe, out, frozenset())
        refuse([*findings, *findings_of(settings, findings)], file)
        with Pool(options.workers, options.threads) as pool:
            one = Sweep(recipe, SweepFolder(out), options, settings, pool, state)
            counts = one.pairs()
            shared = one.shared()
            rows, chosen, jobs = one.choose()
            say("chosen: " + "; ".join(setting.name for setting in chosen.values()))
            state["chosen"] = {name: setting.name for name, setting in chosen.items()}
            write_json(out / STATE, state)
            tests, more = one.read_test(chosen, force)
        study = {
            "name": recipe.name,
            "rule": options.rule.sentence(),
            "metric": options.rule.metric,
            "pairs": counts,
            "seeds": options.seeds,
            "dev": {"split": options.dev, "seeds": options.seeds[: options.dev_seeds], "rows": rows},
            "best": next(iter(chosen)),
            "chosen": state["chosen"],
            "matched": one.limits,
            "tests": options.tests,
            "kept": options.kept,
            "test": tests,
            "readings": len(state["readings"]),
            "source": recipe.data.source,
        }
        write_json(out / "study.json", study)
        write_json(out / "costs.json", _costs(out, jobs, more, shared))
    from clinalign.pages.study import write_study_page

    return write_study_page(out)


def _opened(out: Path, resume: bool) -> Path:
    if (out / STATE).is_file() and not resume:
        raise UsageError(f"{out}: holds a sweep already; add --resume to go on with it, or choose another --out")
    if (out / "run.json").is_file():
        raise UsageError(f"{out}: is a run folder; a sweep has its own, choose another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out names a folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _state(out: Path) -> dict[str, Any]:
    """What the folder says about itself; written at once, so that a killed sweep is known as one."""
    try:
        state = read_state(out / STATE)
    except FileNotFoundError:
        state = {"clinalign": clinalign.__version__, "readings": []}
        write_json(out / STATE, state)
    for part in (out / "corpora").glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)
    return state


def _costs(out: Path, dev: Sequence[Job], test: Sequence[Job], shared: float) -> dict[str, Any]:
    """Seconds: the training steps alone, trainings as a whole, evaluations, what was made once; the quickest training
    of each system, to which others on the machine added least."""
    corpora = [read_state(path) for path in sorted((out / "corpora").glob("*/run.json"))]
    once = math.fsum(stage["seconds"] for state in corpora[-1:] for stage in state["stages"].values())
    jobs: dict[str, Job] = {}
    for job in [*dev, *test]:
        before = jobs.get(job.name)
        jobs[job.name] = job if before is None else replace(job, questions=(*before.questions, *job.questions))
    found = {name: seconds_of(job) for name, job in jobs.items()}
    sums = {
        part: round(math.fsum(one[part] for one in found.values()), 2) for part in ("steps", "trainings", "evaluations")
    }
    by_system: dict[str, list[float]] = {}
    for name, one in found.items():
        by_system.setdefault(name.rsplit("-", 2)[0], []).append(one["trainings"])
    least = {system: round(min(values), 2) for system, values in by_system.items()}
    return {"runs": float(len(found)), **sums, "shared": shared, "corpus": round(once, 2), "training_of": least}
