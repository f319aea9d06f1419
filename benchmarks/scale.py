"""Beyond one process and ten thousand pairs: growth, Ray, several processes, and how far off the estimate is.

    python benchmarks/scale.py --out benchmarks/results/scale.json [--quick] [--part NAME]

Writes `rss_ratio` and `time_ratio` (seconds a row) of 100 000 rows over 10 000, `files_100k` (files of that run besides
its images), `ddp_equal`, `fsdp_equal`, `deadlocks` of several processes, `ray_equal` (Ray's workers, one of them
killed, against one process), `estimate_time_error` and `estimate_memory_error`; null is what was not measured, and
`not_measured` says why. What is done is written before the next part begins. `--quick` takes 1 000 and 2 000 rows, two
recipes and five randomised runs: it shows that every part works, and measures nothing. `--part engines` (or another
name; it may be given again) measures that part alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

VALUES = (
    "rss_ratio", "time_ratio", "files_100k", "ddp_equal", "fsdp_equal", "ray_equal", "deadlocks",
    "estimate_time_error", "estimate_memory_error",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", action="append", choices=list(parts(Path(), quick=True)), help="This part alone")
    parser.add_argument("--work", type=Path, help="Folder to work in; default: a temporary one")
    given = parser.parse_args(arguments)
    result: dict[str, Any] = dict.fromkeys(VALUES) | {
        "quick": given.quick,
        "not_measured": {},
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("clinalign", "torch", "pyarrow")},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        for part, work in parts(Path(name), quick=given.quick).items():
            try:
                if part not in (given.part or [part]):
                    raise SystemExit("not asked for")
                found = work()
            except (ImportError, SystemExit) as error:
                result["not_measured"][part] = str(error)
            else:
                result |= {key: value for key, value in found.items() if key in VALUES}
                result[part] = {key: value for key, value in found.items() if key not in VALUES}
            given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in VALUES}))


def parts(folder: Path, *, quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by name, in order; each in a folder of its own."""

    def of(module: str, **more: Any) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            place = folder / module
            place.mkdir()
            found: dict[str, Any] = import_module(f"scales.{module}").measure(place, **more)
            return found

        return work

    recipes = {"patients": 4, "names": ("dpo", "firempo")} if quick else {}
    return {
        "estimates": of("estimates", **recipes),
        "growth": of("growth", **({"sizes": (1_000, 2_000)} if quick else {})),
        "engines": of("engines"),
        "processes": of("processes", runs=5 if quick else 50),
    }


if __name__ == "__main__":
    main()
