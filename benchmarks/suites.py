"""Every suite on phantoms, every system, one table.

    python benchmarks/suites.py --out suites.json [--run RUN ...] [--systems firempo,keep] [--decoders vcd,pai]

The systems are the embedded base, the same with each decoder, those that run folders hold (whatever trained them:
`clinalign align`, `distill` or `reinforce`; with the warm-up of their run), and the base taught to write chains of four
steps, which it has not seen: S-Chain is asked of the base and of that one alone. `--teach 0` leaves the teaching out,
`--chains FOLDER` keeps it for the next call, `--answers FOLDER` what each system answered to each suite. Systems are
asked side by side, in `--workers` processes of one thread. Writes `minutes` (without teaching; what all took, over the
workers), `seconds` (by suite and system), `suites`, `items_min`, `systems`, `dropped` (questions without an answer:
none), `unparsable_share` (the largest of a suite, the base apart) beside the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

# As a script or its worker: a benchmark beside this one is named like a module of the standard library.
if __name__ in ("__main__", "__mp_main__"):
    FOLDER = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != FOLDER]

import clinalign  # noqa: E402
from clinalign.data.phantom.dataset import split_patients  # noqa: E402
from clinalign.data.phantom.suites import PATIENTS, write_suite  # noqa: E402
from clinalign.errors import UsageError  # noqa: E402
from clinalign.evaluation.suites import SUITES  # noqa: E402
from clinalign.evaluation.suites.table import HEADLINES, compared  # noqa: E402
from clinalign.folder import load_model  # noqa: E402
from clinalign.measuring.options import EvaluationOptions  # noqa: E402
from clinalign.measuring.suites import evaluate_suites, questions  # noqa: E402
from clinalign.merge import recipe_of  # noqa: E402
from clinalign.models import load_vlm  # noqa: E402
from clinalign.records import Example, Outcome  # noqa: E402
from clinalign.storage import file_hash, key_of, read_table, write_json, write_table  # noqa: E402
from clinalign.study.pool import Pool  # noqa: E402

BASE, TAUGHT = "base", "taught chains"


class System(NamedTuple):
    """Who is asked: the base with a decoder, an adapter of its own, or one of a run folder."""

    model: str
    decoder: str = "greedy"
    adapter: Path | None = None
    run: Path | None = None

    def load(self) -> Any:
        """The model, warmed up as its run was before it was trained."""
        if self.run is None:
            return load_vlm(self.model, adapter=self.adapter)
        recipe = recipe_of(self.run)
        return load_model(recipe, self.run / "warmup" / "adapter" if recipe.warmup is not None else None, self.adapter)


def systems_of(
    model: str, runs: Sequence[Path], decoders: Sequence[str], wanted: Sequence[str] = ()
) -> dict[str, System]:
    """Everyone by label: the base, with each decoder, what the runs trained (of that, the `wanted`; empty:
    all). A label that two runs share is told apart by the folder.

    Raises `UsageError` for a folder that is no run of this model or has nothing to ask.
    """
    found = {BASE: System(model)} | {f"{BASE} ({name})": System(model, name) for name in decoders}
    for run in runs:
        recipe = recipe_of(run)
        if recipe.model != model:
            raise UsageError(f"{run}: a run of '{recipe.model}'; the suites are asked of '{model}', give a run of it")
        folders = {recipe.align.label: run / "adapter"}
        folders |= {path.parent.name: path for path in sorted(run.glob("compare/*/adapter"))}
        trained = {name: f for name, f in folders.items() if f.is_dir() and (not wanted or name in wanted)}
        if not trained:
            raise UsageError(f"{run}: none of {', '.join(wanted or folders)} is trained; run `clinalign run` first")
        for name, adapter in trained.items():
            label = f"{name} ({run.name})" if name in found else name
            found[label] = System(model, adapter=adapter, run=run)
    return found


def ask(
    label: str, system: System, suite: str, items: list[Example], folder: Path, answers: Path | None = None
) -> tuple[list[Outcome], float]:
    """One system's answers to one suite, as the evaluate stage asks it, and the seconds they took; those in `answers`
    that the same model gave to the same questions are not asked for again."""
    began = time.perf_counter()
    options = EvaluationOptions.model_validate({"decoder": system.decoder, "max_new_tokens": 64})
    asked = {suite: list(questions(suite, items, folder))}
    vlm = system.load()
    try:
        put = [(q.example.id, q.condition, q.prompt) for q in asked[suite]]
        shown = [file_hash(folder / name) for example in items for name in example.images]
        key = key_of([clinalign.__version__, options.model_dump(mode="json"), vlm.fingerprint(), label, put, shown])
        file = answers / f"{suite}-{key[:16]}.parquet" if answers is not None else None
        if file is not None and file.with_suffix(".json").is_file():
            return list(read_table(file, Outcome)), float(json.loads(file.with_suffix(".json").read_text()))
        found = evaluate_suites(vlm, asked, folder, options, system=label, samples=options.suite_samples)
    finally:
        vlm.close()
    took = time.perf_counter() - began
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_table(file, found, Outcome)
        write_json(file.with_suffix(".json"), took)
    return found, took


def lessons(items: Sequence[Example], folder: Path) -> list[Example]:
    """What the suite asks, with the right answers: each chain whole, and its rest after one to four given steps by
    turns (after four, nothing but the end of a line)."""
    given = {e.id: f"step_given_{1 + number % 4}" for number, e in enumerate(items)}
    asked = (q for q in questions("s_chain", items, folder) if q.condition in ("clean", given[q.example.id]))
    return [
        replace(e, id=f"{e.id}-{q.condition}", question=q.prompt, full=str(e.full)[len(q.given) :] or "\n")
        for q in asked
        for e in [q.example]
    ]


def teach(model: str, folder: Path, out: Path, steps: int) -> Path:
    """Weights of the base that has learnt to write chains, on patients of the align split.

    All weights train, as in the published recipe: the base never read most tokens of a chain's marks, their vectors lie
    in one heap (`<pad>` among them), and an adapter leaves them there.
    """
    from clinalign.training import train
    from clinalign.training.encode import truth_pairs
    from clinalign.training.options import TrainOptions

    items = write_suite("s_chain", folder, split="align", patients=split_patients("align", 4 * steps))
    vlm = load_vlm(model)
    pairs = truth_pairs(lessons(items, folder), vlm.tokenizer, vlm.end_id)
    options = TrainOptions(method="sft", tune="full", lr=1e-3, batch=4, max_steps=steps, warmup_ratio=0.05)
    train(vlm, pairs, folder, options, out, label="chains")
    vlm.close()
    return out / "adapter"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="embedded", help="the base, an embedded model or a folder")
    parser.add_argument("--run", type=Path, action="append", default=[])
    parser.add_argument("--systems", default="", help="of the runs, by label; empty: all that are trained")
    parser.add_argument("--decoders", default="vcd,pai")
    parser.add_argument("--suites", default=",".join(name for name in SUITES if name != "eh"))  # eh.py
    parser.add_argument("--teach", type=int, default=300, help="steps of the chain training; 0: none")
    parser.add_argument("--chains", type=Path, help="where the chain training is kept, and found again")
    parser.add_argument("--answers", type=Path, help="where answers are kept, and found again")
    parser.add_argument("--patients", type=float, default=1.0, help="share of the patients, for a trial")
    parser.add_argument("--workers", type=int, default=2, help="systems asked at once, a thread each")
    given = parser.parse_args()
    names = given.suites.split(",")
    systems = systems_of(given.model, given.run, _listed(given.decoders), _listed(given.systems))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.teach and "s_chain" in names:
            systems[TAUGHT] = System(
                given.model, adapter=teach(given.model, folder, given.chains or folder / "taught", given.teach)
            )
        items = {name: written(name, folder, given.patients) for name in names}
        jobs = [
            (label, system, name, items[name], folder, given.answers)
            for name in names
            for label, system in asked_of(name, systems)
        ]
        jobs.sort(key=lambda job: job[1].decoder == "greedy")  # the long ones first: they read every question twice
        with Pool(given.workers, 1) as pool:
            results = pool.each(ask, jobs, "suites")
    found: dict[str, dict[str, list[Outcome]]] = {name: {} for name in names}
    seconds: dict[str, dict[str, float]] = {name: {} for name in names}
    for (label, _, name, *_), (outcomes, took) in zip(jobs, results, strict=True):
        found[name][label], seconds[name][label] = outcomes, round(took, 1)
    minutes = sum(took for _, took in results) / given.workers / 60
    result = summed(items, found) | {"minutes": minutes, "seconds": seconds, "systems": list(systems)}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def _listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def written(suite: str, folder: Path, part: float = 1.0) -> list[Example]:
    """The questions of a suite on a part of its test patients."""
    return write_suite(suite, folder, split="test", patients=split_patients("test", int(PATIENTS[suite] * part)))


def asked_of(suite: str, systems: dict[str, System]) -> list[tuple[str, System]]:
    """Who is asked a suite: chains of the base and of the system that learnt them, the others of all but that one."""
    return [(x, one) for x, one in systems.items() if (x in (BASE, TAUGHT) if suite == "s_chain" else x != TAUGHT)]


def summed(items: dict[str, list[Example]], found: dict[str, dict[str, list[Outcome]]]) -> dict[str, Any]:
    rows = {name: compared(name, systems, items[name], baseline=BASE) for name, systems in found.items()}
    unread = [row["unparsable"] for suite in rows.values() for label, row in suite.items() if label != BASE]
    reported = {name: [e for e in of if e.split != "dev"] for name, of in items.items()}
    answers = {(o.example_id, o.system) for of in found.values() for outs in of.values() for o in outs}
    expected = {(e.id, label) for name, of in items.items() for label in found[name] for e in of}
    return {
        "suites": list(items),
        "items_min": min(len(of) for of in reported.values()),
        "dropped": len(expected - answers),
        "unparsable_share": max(unread, default=None),
        "table": rows,
        "details": {n: {s: SUITES[n](o, items[n]) for s, o in systems.items()} for n, systems in found.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The systems of each suite, score with interval, and the difference to the base with its adjusted p."""
    lines = []
    for suite, rows in result["table"].items():
        lines.append(f"{suite}: {HEADLINES[suite][0]}")
        for label, row in rows.items():
            score, change = row["score"], row.get("difference")
            shown = f"  {label:24} {100 * score['estimate']:5.1f} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
            if change:
                shown += f"  {100 * change['estimate']:+.1f} p {change['p_adjusted']:.2g}"
            lines.append(f"{shown}  unparsable {100 * row['unparsable']:.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
