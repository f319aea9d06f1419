"""Every suite on phantoms, every system, one table.

    python benchmarks/suites.py --out suites.json [--run RUN ...] [--decoders vcd,pai] [--suites causal,modality]

The systems are the embedded base, the same with each decoder, what a run folder holds (its own adapter and those of the
systems it was compared with), and the base taught to write chains of four steps, which it has not seen: S-Chain is
asked of the base and of that one alone. `--teach 0` leaves the teaching out. Writes `minutes` (without teaching),
`suites`, `items_min`, `systems`, `dropped` (questions without an answer: none), `unparsable_share` (the largest of a
suite, the base apart) beside the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A benchmark beside this one is named like a module of the standard library, which it must not shadow.
FOLDER = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != FOLDER]

from clinalign.data.phantom.dataset import split_patients  # noqa: E402
from clinalign.data.phantom.suites import PATIENTS, write_suite  # noqa: E402
from clinalign.evaluation.suites import SUITES  # noqa: E402
from clinalign.evaluation.suites.table import HEADLINES, compared  # noqa: E402
from clinalign.measuring.options import EvaluationOptions  # noqa: E402
from clinalign.measuring.suites import evaluate_suites, questions  # noqa: E402
from clinalign.models import load_vlm  # noqa: E402
from clinalign.records import Example, Outcome  # noqa: E402

BASE, TAUGHT = "base", "taught chains"


@contextmanager
def loaded(adapter: Path | None) -> Iterator[Any]:
    vlm = load_vlm("embedded", adapter=adapter)
    try:
        yield vlm
    finally:
        vlm.close()


def outcomes_of(vlm: Any, decoder: str, suite: str, items: list[Example], folder: Path, system: str) -> list[Outcome]:
    """A suite asked of one model with one decoder, as the evaluate stage asks it."""
    options = EvaluationOptions.model_validate({"decoder": decoder, "max_new_tokens": 64})
    asked = {suite: list(questions(suite, items, folder))}
    return evaluate_suites(vlm, asked, folder, options, system=system, samples=options.suite_samples)


def teach(folder: Path, steps: int) -> Path:
    """An adapter of the base that has learnt to write chains, on patients of the align split."""
    from clinalign.training import train
    from clinalign.training.encode import truth_pairs
    from clinalign.training.options import TrainOptions

    items = write_suite("s_chain", folder, split="align", patients=split_patients("align", 4 * steps))
    with loaded(None) as vlm:
        pairs = truth_pairs(items, vlm.tokenizer, vlm.eos_ids[0])
        options = TrainOptions(method="sft", lr=2e-3, batch=8, max_steps=steps, warmup_ratio=0.05)
        train(vlm, pairs, folder, options, folder / "taught", label="chains")
    return folder / "taught" / "adapter"


def systems_of(runs: list[Path], decoders: list[str]) -> dict[str, tuple[Path | None, str]]:
    """Label -> (adapter, decoder)."""
    found: dict[str, tuple[Path | None, str]] = {BASE: (None, "greedy")}
    found |= {f"{BASE} ({name})": (None, name) for name in decoders}
    for folder in runs:
        adapters = {folder.name: folder / "adapter"} | {p.parent.name: p for p in folder.glob("compare/*/adapter")}
        found |= {label: (adapter, "greedy") for label, adapter in adapters.items() if adapter.is_dir()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, action="append", default=[])
    parser.add_argument("--decoders", default="vcd,pai")
    parser.add_argument("--suites", default=",".join(name for name in SUITES if name != "eh"))  # eh.py
    parser.add_argument("--teach", type=int, default=300, help="steps of the chain training; 0: none")
    parser.add_argument("--patients", type=float, default=1.0, help="share of the patients, for a trial")
    given = parser.parse_args()
    names = given.suites.split(",")
    systems = systems_of(given.run, [name for name in given.decoders.split(",") if name])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.teach and "s_chain" in names:
            systems[TAUGHT] = (teach(folder, given.teach), "greedy")
        start = time.perf_counter()
        items = {
            name: write_suite(
                name, folder, split="test", patients=split_patients("test", int(PATIENTS[name] * given.patients))
            )
            for name in names
        }
        found: dict[str, dict[str, list[Outcome]]] = {name: {} for name in names}
        for label, (adapter, decoder) in systems.items():
            with loaded(adapter) as vlm:
                for name in names:
                    if (label == TAUGHT and name != "s_chain") or (name == "s_chain" and label not in (BASE, TAUGHT)):
                        continue
                    found[name][label] = outcomes_of(vlm, decoder, name, items[name], folder, label)
                    print(f"{label}, {name}: {len(found[name][label])} answers", file=sys.stderr, flush=True)
        minutes = (time.perf_counter() - start) / 60
    result = summed(items, found) | {"minutes": minutes, "systems": list(systems)}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


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
