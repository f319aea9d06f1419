"""Where the stages of a run keep what; with several rounds a round's number is part of the name."""

from __future__ import annotations

from pathlib import Path

from clinalign.folder import Run
from clinalign.records import Pair
from clinalign.training.options import TrainOptions


def stage_name(run: Run, stage: str, number: int) -> str:
    return f"{stage}:round{number}" if run.recipe.rounds > 1 else stage


def suffix(run: Run, number: int) -> str:
    return f".round{number}" if run.recipe.rounds > 1 else ""


def table_of(run: Run, table: str, number: int) -> Path:
    return run.out / f"{table}{suffix(run, number)}.parquet"


def journal_of(run: Run, stage: str) -> Path:
    """Where a stage keeps what its rows were made of, to take over those that nothing has touched since."""
    return run.out / "journals" / f"{stage}.journal"


def system_folder(run: Run, label: str, number: int | None) -> Path:
    """Where a system's adapter and metrics live; `number` None means the final one."""
    if label != run.recipe.align.label:
        return run.out / "compare" / label
    return run.out if run.recipe.rounds == 1 or number is None else run.out / "rounds" / str(number)


def adapter_of(run: Run, number: int) -> Path | None:
    return None if number < 0 else system_folder(run, run.recipe.align.label, number) / "adapter"


def adapter_files(adapter: Path | None) -> list[Path]:
    """What an adapter's numbers depend on; its card does not belong to it."""
    return sorted(path for path in adapter.glob("*") if path.suffix in (".safetensors", ".json")) if adapter else []


def places(run: Run, adapter: Path) -> dict[str, str]:
    """What an adapter's card says of where it lies in the run folder, and where the warm-up that it stands on does."""
    warm = run.warmup_folder / "adapter" if run.recipe.warmup is not None else None
    named = {"here": adapter, "warmup": warm}
    return {name: path.relative_to(run.out).as_posix() for name, path in named.items() if path is not None}


def trained_files(folder: Path) -> list[Path]:
    """What a training leaves: the adapter, the facts of its card, its metrics and its result."""
    adapter = folder / "adapter"
    return [*adapter_files(adapter), adapter / "card.yaml", folder / "metrics.jsonl", folder / "train.json"]


def pair_images(pair: Pair) -> list[str]:
    """The images that a pair names: its own, the corrupted ones, the controls, the ladder, and the mask of its
    region."""
    names = [*pair.images, *(pair.corrupted_images or []), *(pair.control_images or [])]
    names += [name for images in pair.ladder_images for name in images]
    return [*names, pair.region.mask] if pair.region is not None and pair.region.mask else names


def teacher_hash(options: TrainOptions) -> str:
    """A hash of the files of the teacher that teaches, or of the expert that rewards, where one does."""
    if options.distill is None and options.reinforce is None:
        return ""
    from clinalign.models.teachers import teacher_files_hash

    if options.reinforce is not None:
        return teacher_files_hash(options.reinforce.expert)
    assert options.distill is not None
    return teacher_files_hash(options.distill.teacher)
