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
from clinalign.evaluation.metrics import own_metrics
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
    Questions,
    SweepFolder,
    reading_key,
    results,
    run_job,
    seconds_of,
    settings_key,
    share,
    used_pairs,
)
from clinalign.study.options import SweepOptions
from clinalign.study.pool import Pool
from clinalign.study.settings import (
    Setting,
    asked_by,
    check_measured,
    findings_of,
    matched,
    ranked,
    rungs,
    scaled,
    settings_of,
)
from clinalign.study.tables import dev_rows, kept_summary, test_summary, with_frontier

STATE = "sweep.json"
STAGES = ("ingest", "warmup", "answer", "pair", "corrupt")
COMMON = {"pictures": False, "suites": [], "suite_data": {}, "decoders": [], "drift": True}
"""What a sweep's questions have in common: its page shows no pictures, suites and decoders are asked of a run."""
QUIET = {"flips": [], "ablations": [], "grounding": False, "calibration": False}
"""Of an evaluation what only the reading of test needs, unless the rule names one of its metrics."""


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
    lost: dict[str, str] = field(default_factory=dict)
    """Further seeds of what dev chose that diverged: test is without them."""

    def job(self, setting: Setting, seed: int, share_of_steps: float = 1.0, questions: Sequence[Questions] = ()) -> Job:
        """A setting's training at a share of its steps."""
        align = scaled(setting.recipe.align, share_of_steps)
        resolved = setting.recipe.model_copy(update={"align": align, "sweep": None, "compare": {}})
        values = resolved.model_dump(mode="json")
        stem = settings_key(values["align"], setting.corpus)[:10]
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
        own = self.recipe.evaluate.model_dump(mode="json") | COMMON | QUIET
        return Questions(self.options.dev, own | asked_by(self.recipe, self.options.rule) | {"split": self.options.dev})

    def tests(self) -> list[Questions]:
        """What is asked once: the first split in full, the others without interventions; then the other tasks."""
        own = self.recipe.evaluate.model_dump(mode="json") | COMMON
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
        counts: dict[str, int] = {}
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
                if stage == STAGES[0] and not counts:
                    self._check_splits()
            with (run := Run(own, folder, resume=True)).lock:
                check_audit(run, 0)
            counts[folder.name] = len(read_table(folder / "corrupted_pairs.parquet", Pair))
        return counts

    def _check_splits(self) -> None:
        """Raises `UsageError` where a split that will be asked has no example."""
        there = {e.split for e in read_table(self.folder.data / "examples.parquet", Example)}
        missing = [split for split in self.options.asked if split not in there]
        if missing:
            raise UsageError(
                f"sweep: no example has split '{missing[0]}'; there are {', '.join(sorted(there))}: add it to "
                "data.splits, or name another one"
            )

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
        own = own_metrics(self.recipe.evaluate.metrics)
        of_base = dev_rows({}, [results(base, self.dev)], examples, own)
        check_measured(list(of_base.values()), rule, asked=True)  # before anything is trained
        rows: list[dict[str, Any]] = []
        left = list(self.settings)
        most = max(sum(s.system == one.system for s in left) for one in left)
        for share_of_steps in (steps := rungs(most, self.options.halving)):
            tried = {s.name: [self.job(s, seed, share_of_steps, [self.dev]) for seed in seeds] for s in left}
            flat = [job for each in tried.values() for job in each]
            lost = self.do(flat, f"dev, {share_of_steps:.0%} of the steps")
            jobs += [job for job in flat if job.name not in lost]
            why = {name: next((lost[job.name] for job in each if job.name in lost), "") for name, each in tried.items()}
            found = {name: [results(job, self.dev) for job in tried[name]] for name in tried if not why[name]}
            means = dev_rows(found, [results(base, self.dev)], examples, own)
            rows = [row for row in rows if row["name"] not in tried]
            rows += [self._row(s, share_of_steps, means.get(s.name, {}), tried[s.name], why[s.name]) for s in left]
            by_system = {s.system: [one for one in left if one.system == s.system] for s in left}
            gone = next((name for name, each in by_system.items() if all(why[s.name] for s in each)), None)
            if gone is not None:
                first_of = by_system[gone][0].name
                raise UsageError(f"sweep: no setting of '{gone}' can be trained; '{first_of}': {why[first_of]}")
            left = [setting for setting in left if not why[setting.name]]
            by_system = {name: [setting for setting in each if setting in left] for name, each in by_system.items()}
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

    def do(self, jobs: Sequence[Job], label: str) -> dict[str, str]:
        """Does the jobs, each once. By name why those that diverged did."""
        once = {job.name: job for job in jobs}  # a matched setting may be the chosen one
        found = self.pool.each(run_job, [(job,) for job in once.values()], label)
        return {name: what for name, what in zip(once, found, strict=True) if what}

    def _row(
        self, setting: Setting, steps: float, means: Mapping[str, float], runs: Sequence[Job], diverged: str
    ) -> dict[str, Any]:
        keys = dict(setting.keys)
        names = [job.name for job in runs]
        row = {"name": setting.name, "system": setting.system, "keys": keys, "steps": steps, "runs": names}
        row |= {"means": dict(means), "pairs": used_pairs(runs[0])}
        return row | {"diverged": diverged} if diverged else row

    def read_test(self, chosen: Mapping[str, Setting], force: bool) -> tuple[dict[str, Any], list[Job]]:
        """Test with what dev chose: all seeds. Raises `UsageError` where it was read before with another choice."""
        questions = self.tests()
        base = self.base(questions)
        jobs = {name: [self.job(s, seed, 1.0, questions) for seed in self.options.seeds] for name, s in chosen.items()}
        self._note_reading(reading_key([base, *(job for each in jobs.values() for job in each)], questions), force)
        self.do([base], "base on test")
        self.lost = self.do([job for each in jobs.values() for job in each], "test")
        jobs = {name: [job for job in each if job.name not in self.lost] for name, each in jobs.items()}
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
                f"{self.folder.out}: test was read already, with another choice, or with other settings, data or files "
                "behind them; what is changed after that is chosen by test. Draw new data, or add --force, and the "
                "page will say how often it was read"
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
        done = _stages_behind(out)
        findings = preflight(recipe, out, done)
        refuse([*findings, *findings_of(settings, findings, done)], file)
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
            "rule_metrics": options.rule.metrics,
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
            "diverged": one.lost,
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


def _stages_behind(out: Path) -> frozenset[str]:
    """The stages that every corpus has behind it: what they need of services is not needed any more."""
    stages = [set(read_state(path)["stages"]) for path in sorted((out / "corpora").glob("*/run.json"))]
    return frozenset(set.intersection(*stages)) if stages else frozenset()


def _costs(out: Path, dev: Sequence[Job], test: Sequence[Job], shared: float) -> dict[str, Any]:
    """Seconds: the training steps alone, trainings as a whole, evaluations, what was made once; the quickest training
    of each system, to which others on the machine added least."""
    corpora = [read_state(path) for path in sorted((out / "corpora").glob("*/run.json"))]
    stages = {key_of([name, stage]): stage["seconds"] for state in corpora for name, stage in state["stages"].items()}
    once = math.fsum(stages.values())  # a corpus begins as a copy of another, with its stages
    jobs: dict[str, Job] = {}
    for job in [*dev, *test]:
        asked = {one.name: one for known in (jobs.get(job.name), job) if known for one in known.questions}
        jobs[job.name] = replace(job, questions=tuple(asked.values()))
    found = {name: seconds_of(job) for name, job in jobs.items()}
    sums = {
        part: round(math.fsum(one[part] for one in found.values()), 2) for part in ("steps", "trainings", "evaluations")
    }
    by_system: dict[str, list[float]] = {}
    for name, one in found.items():
        by_system.setdefault(name.rsplit("-", 2)[0], []).append(one["trainings"])
    least = {system: round(min(values), 2) for system, values in by_system.items()}
    return {"runs": float(len(found)), **sums, "shared": shared, "corpus": round(once, 2), "training_of": least}
