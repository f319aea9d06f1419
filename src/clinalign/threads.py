"""How torch's threads wait, and how many there are: decided before torch is imported, unless the user has.

Between two parallel regions OpenMP's threads spin. Alone on a machine that is the fastest way to wait; beside other
work each spinning thread keeps a core from whoever has something to do, its own partner included, and small forwards
become many times slower. A short spin keeps nearly all of the speed and gives the core back soon.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPINS = "4000"
"""Turns of libgomp's waiting loop before a thread sleeps, some ten microseconds; its own default is 300 000."""
CHOSEN_BY_THE_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def settle(environment: MutableMapping[str, str] = os.environ, cgroup: Path = Path("/sys/fs/cgroup")) -> None:
    """Sets OpenMP's variables where the user set none. Does nothing once torch is there: it has read them."""
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in CHOSEN_BY_THE_USER):
        environment["GOMP_SPINCOUNT"] = SPINS
    allowed, here = allowed_cpus(cgroup), affinity()
    if allowed < here:
        environment.setdefault("OMP_NUM_THREADS", str(allowed))


def affinity() -> int:
    """Cores this process may run on, as OpenMP counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allowed_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores that the process's control group (version 2 or 1) has time for, at least one; OpenMP does not look at
    the quota, and threads beyond it only wait for each other."""
    quota = _quota(cgroup)
    return affinity() if quota is None else max(1, min(affinity(), math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    try:
        text = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        try:
            text = [(cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")]
        except (OSError, UnicodeDecodeError):
            return None
    try:
        time, period = float(text[0]), float(text[1])
    except (ValueError, IndexError):  # "max": no limit
        return None
    return time / period if time > 0 and period > 0 else None
