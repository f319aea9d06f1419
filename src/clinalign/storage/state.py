"""`run.json`: what a run folder says about itself. `folder.py` writes it, the page, `merge` and `compare` read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError

STAGE = {"key": str, "outputs": dict, "quarantined": int, "seconds": int | float}
REMEDY = "run the recipe again with --resume, which sets it aside and makes it anew"


def read_state(path: Path) -> dict[str, Any]:
    """The object in a `run.json`. A damaged one, or JSON that is none, is a `UsageError`."""
    try:
        state = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UsageError(f"{path}: not valid JSON, so it holds no recipe ({str(error)[:100]}); {REMEDY}") from error
    stages = state.setdefault("stages", {}) if isinstance(state, dict) else None
    if not isinstance(stages, dict) or not all(map(_is_stage, stages.values())):
        raise UsageError(f"{path}: not what a run writes; {REMEDY}")
    if not isinstance(state.get("recipe", {}), dict):
        raise UsageError(f"{path}: holds no recipe; {REMEDY}")
    return dict(state)


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not all(isinstance(stage.get(name), kind) for name, kind in STAGE.items()):
        return False
    return all(isinstance(value, str) for value in stage["outputs"].values())
