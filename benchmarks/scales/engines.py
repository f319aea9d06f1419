"""Two workers of Ray against one process on the tiny run of the kill tests: the same bytes, with a worker killed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALL = ("compare={}", "align.max_steps=1")
"""Training is no part of it."""


def measure(folder: Path) -> dict[str, Any]:
    """`ray_equal`: whether every table, image list, number and key of the run is the same. `ray_differs` names what is
    not, `ray_killed` counts workers that were killed hard, `seconds` is what either run took, its start included."""
    sys.path.insert(0, str(ROOT / "tests"))
    import resuming

    one = resuming.build(folder / "one")
    two = Path(shutil.copytree(one, folder / "two"))
    seconds = {"local": _seconds(_started(one))}
    started = _started(two, "engine.kind=ray", "engine.workers=2")
    killed = _killed(started, two)
    seconds["ray"] = _seconds(started)
    differs = resuming.differences(resuming.outcome(one), resuming.outcome(two))
    return {"ray_equal": not differs, "ray_differs": differs, "ray_killed": killed, "seconds": seconds}


def _started(case: Path, *engine: str) -> tuple[subprocess.Popen[str], Path, float]:
    """A run in a case, what it says in `log`."""
    call = [sys.executable, "-m", "clinalign.cli", "run", "recipe.yaml", *SMALL, *engine, "--out", "run"]
    environment = os.environ | {"CLINALIGN_CACHE": str(case / "cache"), "PYTHONPATH": str(ROOT / "src")}
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with (case / "log").open("w") as log:
        process = subprocess.Popen(call, cwd=case, env=environment, stdout=log, stderr=log, text=True)
    return process, case / "log", time.monotonic()


def _seconds(started: tuple[subprocess.Popen[str], Path, float]) -> float:
    process, log, begun = started
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}: {log.read_text()[-2000:]}")
    return round(time.monotonic() - begun, 1)


def _killed(started: tuple[subprocess.Popen[str], Path, float], case: Path) -> int:
    """Kills one of the run's workers as soon as the first answers are written down; how many were."""
    journal = case / "run" / "journals" / "answer.journal"
    while started[0].poll() is None:
        if journal.is_file() and journal.stat().st_size:
            for process in _workers(str(case / "cache")):
                os.kill(process, signal.SIGKILL)
                return 1
        time.sleep(0.01)
    return 0


def _workers(mark: str) -> list[int]:
    """Processes of Ray's workers that have the mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            named = (place / "cmdline").read_bytes().startswith(b"ray::Worker")
            if named and mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    print(json.dumps(measure(parser.parse_args().folder), indent=1))
