"""Where the stages of a run keep what; with several rounds a round's number is part of the name."""

from __future__ import annotations

from pathlib import Path

from clinalign.folder import Run


def stage_name(run: Run, stage: str, number: int) -> str:
    return f"{stage}:round{number}" if run.recipe.rounds > 1 else stage


def suffix(run: Run, number: int) -> str:
    return f".round{number}" if run.recipe.rounds > 1 else ""


def table_of(run: Run, table: str, number: int) -> Path:
    return run.out / f"{table}{suffix(run, number)}.parquet"


def system_folder(run: Run, label: str, number: int | None) -> Path:
    """Where a system's adapter and metrics live; `number` None means the final one."""
    if label != run.recipe.align.method:
        return run.out / "compare" / label
    return run.out if run.recipe.rounds == 1 or number is None else run.out / "rounds" / str(number)


def adapter_of(run: Run, number: int) -> Path | None:
    return None if number < 0 else system_folder(run, run.recipe.align.method, number) / "adapter"


def adapter_files(run: Run, number: int) -> list[Path]:
    folder = adapter_of(run, number)
    return sorted(folder.glob("*.safetensors")) if folder else []
