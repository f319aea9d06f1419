"""Model folders and run folders with one file damaged, lost or replaced."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzing import cells
from fuzzing.worker import Case

COMMANDS = ("report", "report", "audit", "export", "compare", "merge", "resume")


def models(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """Copies of the embedded model, looked at by `check`."""
    from clinalign.models.guard import source_of

    shipped, folder = Path(source_of("embedded")), base / "model"
    for number in range(count):
        _linked(shipped, folder)
        victim = draw.choice(sorted(path for path in folder.iterdir() if path.name != "README.md"))
        how = _spoil(victim, draw)
        yield Case("models", 1, ["check", str(folder)], note=f"{number} {victim.name} {how}")


def runs(count: int, base: Path, finished: Path, draw: random.Random) -> Iterator[Case]:
    """Copies of a finished run, given to the commands that read one."""
    folder = base / "run"
    for number in range(count):
        _linked(finished, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".html")
        tops = [path for path in files if path.parent == folder]
        victim = draw.choice(tops if draw.random() < 0.6 else files)
        how = _spoil(victim, draw)
        command = draw.choice(COMMANDS)
        out = base / "made"
        shutil.rmtree(out, ignore_errors=True)
        arguments = {
            "report": ["report", str(folder)],
            "audit": ["audit", str(folder)],
            "export": ["export", str(folder), "--to", "trl", "--out", str(out)],
            "compare": ["compare", str(folder)],
            "merge": ["merge", str(folder), str(out)],
            "resume": ["ingest", str(base / "tiny.yaml"), "--out", str(folder)],
        }[command]
        yield Case("folders", 1, arguments, note=f"{number} {command} {victim.relative_to(folder)} {how}")


def _linked(source: Path, target: Path) -> None:
    """A copy whose files are links, so that it costs nothing; a damaged one is written anew."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)


def _spoil(path: Path, draw: random.Random) -> str:
    """Damages a file, and says how."""
    data = path.read_bytes()
    path.unlink()
    kind = draw.choice(("lost", "empty", "cut", "noise", "folder", "flipped", "json", "json", "json"))
    if kind == "lost":
        return kind
    if kind == "folder":
        path.mkdir()
        return kind
    if kind == "json" and path.suffix in (".json", ".jsonl"):
        path.write_text(_other_json(data.decode("utf-8"), draw, lines=path.suffix == ".jsonl"), encoding="utf-8")
        return kind
    spoilt = bytearray(
        {"empty": b"", "cut": data[: draw.randrange(len(data) + 1)], "noise": draw.randbytes(300)}.get(kind, data)
    )
    if kind in ("flipped", "json"):
        for _ in range(20):
            if spoilt:
                spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
    path.write_bytes(spoilt)
    return kind


def _other_json(text: str, draw: random.Random, *, lines: bool) -> str:
    """JSON with one value replaced by one of another kind."""
    if lines:
        rows = text.split("\n")
        at = draw.randrange(len(rows))
        rows[at] = _other_json(rows[at], draw, lines=False) if rows[at] else cells.raw_json(draw)
        return "\n".join(rows)
    found: Any = json.loads(text)
    place: Any = found
    while isinstance(place, dict | list) and place:
        key = draw.choice(sorted(place)) if isinstance(place, dict) else draw.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.4:
            place[key] = cells.value(draw)
            break
        place = place[key]
    return json.dumps(found)
