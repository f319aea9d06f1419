"""A table of 100 000 rows goes through ingest in the memory of one of 10 000, and no row is lost.

    python benchmarks/ingest.py --out benchmarks/results/ingest.json

Every fiftieth row is bad (a missing image, an empty answer, a box outside). Rows, masks and images are written first;
each size is then read in a process of its own, `--repeats` times, sizes in turn. Written down: rows a second (median,
the larger table, table and images on disk already), peak memory of the larger over the smaller (each the median), and
rows that are neither in the table nor in the quarantine.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 200
SIDE = 64
SIZES = (10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES, help="rows of the smaller and the larger table")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(read_once(arguments.child, arguments.out)))
        return
    result = measure(tuple(arguments.sizes), arguments.repeats)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("rows_per_s", "rss_ratio_100k_10k", "lost_rows")}))


def measure(sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Both sizes in turn, each in its own process."""
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder)
        tables = {size: write_rows(folder, size) for size in sizes}
        for repeat in range(repeats):
            for size, table in tables.items():
                call = [sys.executable, __file__, "--child", str(table), "--out", str(folder / f"{size}-{repeat}")]
                done = subprocess.run(call, capture_output=True, text=True, check=True)
                runs[size].append(json.loads(done.stdout))
    small, large = (runs[size] for size in sizes)
    peak = {size: _median(run["peak_mib"] for run in runs[size]) for size in sizes}
    return {
        "rows_per_s": round(_median(sizes[1] / run["seconds"] for run in large), 1),
        "rss_ratio_100k_10k": round(peak[sizes[1]] / peak[sizes[0]], 4),
        "lost_rows": max(int(size - run["kept"] - run["left_out"]) for size in sizes for run in runs[size]),
        "rows": list(sizes),
        "left_out": int(large[0]["left_out"]),
        "peak_mib": peak,
        "start_mib": _median(run["start_mib"] for run in small + large),
        "runs": {str(size): runs[size] for size in sizes},
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("clinalign", "numpy", "pillow", "pyarrow")},
    }


def _median(values: Iterable[float]) -> float:
    return round(float(np.median(list(values))), 2)


def draw(folder: Path) -> None:
    """Small grey images and one mask."""
    from clinalign.imaging.images import write_png

    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        write_png(folder / f"{number:03d}.png", rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[10:20, 10:20] = True
    write_png(folder / "mask.png", mask)
    (folder / "key").write_bytes(b"a key for the benchmark")


def write_rows(folder: Path, count: int) -> Path:
    """A JSONL table: ids, patients, boxes, masks; a fifth of the rows has no split, one in fifty is bad."""
    path = folder / f"{count}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            image = n % IMAGES
            row: dict[str, Any] = {
                "id": f"row-id-{n:07d}",
                "image": f"{image:03d}.png",
                "question": f"Question {n}: is there a nodule in the left upper lobe of this chest radiograph?",
                "answer": ("yes", "no", "The nodule lies in the left upper lobe.")[n % 3],
                "patient_id": f"P{image:05d}",
                "split": "" if image % 5 == 0 else ("train", "test")[image % 5 == 1],
            }
            if n % 2:
                row["box"] = [4, 5, 20, 21]
            else:
                row["mask"] = "mask.png"
            if n % 50 == 49:
                row |= ({"image": "none.png"}, {"answer": " "}, {"box": [60, 60, 20, 20]})[n // 50 % 3]
            file.write(json.dumps(row) + "\n")
    return path


def read_once(table: Path, out: Path) -> dict[str, float]:
    """One ingest in this process: seconds, rows kept and left out, memory before and at its peak."""
    from clinalign.data import stream
    from clinalign.data.options import DataOptions
    from clinalign.records import Example
    from clinalign.storage import Quarantine, write_table

    quarantine = Quarantine(out / "quarantine.jsonl")
    options = DataOptions(source="table", path=str(table), key_file=str(table.parent / "key"))
    start_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    kept = write_table(out / "examples.parquet", stream(options, out, quarantine), Example)
    quarantine.flush()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    left_out = sum(1 for _ in (out / "quarantine.jsonl").open(encoding="utf-8"))
    return {"seconds": seconds, "kept": kept, "left_out": left_out, "start_mib": start_mib, "peak_mib": peak}


if __name__ == "__main__":
    main()
