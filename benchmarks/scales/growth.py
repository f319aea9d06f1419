"""Ten times the rows: peak memory and seconds of each stage at 10 000 and at 100 000 rows, each in its own process.

The rows ask about a few small images, so that what grows is the table. A model's answers are written, not sampled: what
is measured is everything around the model, from ingest to the start of training and the page. Seconds are CPU time of
the process, so that others on the machine do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from ingest import IMAGES, draw

SIZES = (10_000, 100_000)
STAGES = ("ingest", "pair", "corrupt", "audit", "statistics", "train", "page")
FINDINGS = ("nodule", "consolidation", "pneumothorax", "pleural effusion")
ZONES = ("upper", "middle", "lower")
TESTED = 50
"""Every so many-th image is of the test split."""


def measure(folder: Path, *, sizes: tuple[int, int] = SIZES, stages: tuple[str, ...] = STAGES) -> dict[str, Any]:
    """`rss_ratio` and `time_ratio` (seconds a row) of the larger size over the smaller, the worst stage's memory and
    all stages' time; `files_100k`: files of the larger run besides its images; and each stage's own numbers."""
    draw(folder)
    found: dict[str, dict[str, dict[str, float]]] = {stage: {} for stage in stages}
    for stage in stages:
        for size in sizes:
            call = [sys.executable, __file__, "--child", stage, "--rows", str(size), "--folder", str(folder)]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{stage} of {size} rows failed:\n{done.stderr[-4000:]}")
            found[stage][str(size)] = json.loads(done.stdout.splitlines()[-1])
    small, large = (str(size) for size in sizes)
    peaks = {stage: of[large]["peak_mib"] / of[small]["peak_mib"] for stage, of in found.items()}
    seconds = [sum(of[size]["seconds"] for of in found.values()) for size in (small, large)]
    return {
        "rss_ratio": round(max(peaks.values()), 4),
        "time_ratio": round(seconds[1] / sizes[1] / (seconds[0] / sizes[0]), 4),
        "files_100k": files_of(folder / f"run-{large}"),
        "rows": list(sizes),
        "rss_ratios": {stage: round(peak, 4) for stage, peak in peaks.items()},
        "time_ratios": {
            stage: round(of[large]["seconds"] / sizes[1] / (of[small]["seconds"] / sizes[0]), 4)
            for stage, of in found.items()
        },
        "stages": found,
    }


def files_of(folder: Path) -> int:
    """Files below a folder that are no images."""
    return sum(path.is_file() and path.suffix != ".png" for path in folder.rglob("*"))


def write_rows(folder: Path, count: int) -> Path:
    """A JSONL table of questions about findings, `count` of them for learning and a few for the test split."""
    path = folder / f"{count}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            image = n % IMAGES
            asked = FINDINGS[n // IMAGES % len(FINDINGS)]
            side = ("left", "right")[n % 2]
            row: dict[str, Any] = {
                "id": f"row-{n:07d}",
                "image": f"{image:03d}.png",
                "question": f"Study {n}: on which side is the {asked}?",
                "answer": side,
                "finding": asked,
                "patient_id": f"P{image:05d}",
                "split": "test" if image % TESTED == 0 else "align",
                "box": [4 + image % 8, 5, 8, 8],
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_answers(run: Any) -> None:
    """What a model might have said: every third answer names the wrong side, in several wordings."""
    from clinalign.language.offsets import answer_end
    from clinalign.models import load_tokenizer
    from clinalign.records import Answer, Example
    from clinalign.storage import iter_table, write_table

    tokenizer = load_tokenizer(run.recipe.model, run.recipe.processor)
    end = answer_end(tokenizer, tokenizer.chat_template)
    forms = (
        "The {finding} is in the {side} lung.",
        "There is a {finding} in the {side} {zone} zone.",
        "A {finding} is seen in the {side} {zone} zone.",
    )
    rng = random.Random(0)

    def answers() -> Any:
        for example in iter_table(run.out / "examples.parquet", Example):
            if example.split != "align":
                continue
            side = example.answer if rng.random() < 0.6 else {"left": "right", "right": "left"}[example.answer]
            text = rng.choice(forms).format(finding=example.finding, side=side, zone=rng.choice(ZONES))
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
            yield Answer(example.id, "stand-in", 0, example.prompt, text, ids, "stop")

    write_table(run.out / "answers.parquet", answers(), Answer)


def child(stage: str, rows: int, folder: Path) -> dict[str, float]:
    """One stage in this process: seconds, and the memory before and at its peak."""
    from clinalign.folder import Run
    from clinalign.recipe import load_recipe

    recipe = folder / f"{rows}.yaml"
    if stage == "ingest":
        table = write_rows(folder, rows)
        recipe.write_text(RECIPE.format(table=table, key=folder / "key", cache=folder / f"cache-{rows}"))
    run = Run(load_recipe(str(recipe), []), folder / f"run-{rows}", resume=True)
    with run.lock:
        if stage == "pair" and not (run.out / "answers.parquet").is_file():
            write_answers(run)
            return child_anew(stage, rows, folder, run)
        work = _works(run)[stage]
        start_mib = memory("VmRSS")
        began = time.process_time()
        work()
        return {
            "seconds": round(time.process_time() - began, 3),
            "start_mib": start_mib,
            "peak_mib": memory("VmHWM"),
        }


def child_anew(stage: str, rows: int, folder: Path, run: Any) -> dict[str, float]:
    """The same in a process that has not written the answers."""
    run.lock.release()
    call = [sys.executable, __file__, "--child", stage, "--rows", str(rows), "--folder", str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _works(run: Any) -> dict[str, Callable[[], object]]:
    from clinalign.pages import write_report
    from clinalign.pairs.audit import audit_file
    from clinalign.stages import corpus, training

    def statistics() -> object:
        from clinalign.pairs import corpus_numbers
        from clinalign.records import Pair
        from clinalign.storage import open_table

        return corpus_numbers(open_table(run.out / "corrupted_pairs.parquet", Pair))

    return {
        "ingest": lambda: corpus.ingest(run),
        "pair": lambda: corpus.pair(run, 0),
        "corrupt": lambda: corpus.corrupt(run, 0),
        "audit": lambda: audit_file(run.out),
        "statistics": statistics,
        "train": lambda: training.align(run, 0),
        "page": lambda: write_report(run.out),
    }


def memory(name: str) -> float:
    """A line of this process's memory in MiB: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise SystemExit(f"no {name} in /proc/self/status; this benchmark runs on Linux")


RECIPE = """
name: Growth
model: embedded
device: cpu
audit: go_on
data: {{source: table, path: {table}, key_file: {key}}}
align: {{method: firempo, batch: 4, max_steps: 2, cache: {cache}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES)
    parser.add_argument("--stages", nargs="+", default=STAGES)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.rows, arguments.folder)))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure(arguments.folder, sizes=tuple(arguments.sizes), stages=tuple(arguments.stages)), indent=1))


if __name__ == "__main__":
    main()
