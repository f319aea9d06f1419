"""`clinalign check`: what a recipe, a table or a model folder is, or the first thing that is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.records import Answer, Example, Outcome, Pair
from clinalign.tables import read_table

KINDS: tuple[type[Any], ...] = (Pair, Outcome, Answer, Example)


def check(target: str) -> str:
    """Validates one thing and describes it in a few lines. Raises `UsageError` naming file, row and column."""
    path = Path(target)
    if path.suffix in (".yaml", ".yml") or not path.exists():
        return _recipe(target)
    if path.is_dir():
        return _model(path)
    return _table(path)


def _recipe(target: str) -> str:
    from clinalign.recipe import load_recipe

    recipe = load_recipe(target)
    systems = ", ".join(recipe.systems())
    return f"{target}: a valid recipe. model {recipe.model}, data {recipe.data.source}, trains {systems}"


def _model(folder: Path) -> str:
    from clinalign.models import load_vlm

    return load_vlm(str(folder)).describe()


def _table(path: Path) -> str:
    if path.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{path}: check takes a recipe (.yaml), a table (.parquet, .jsonl) or a model folder")
    kind = _kind(path)
    records = read_table(path, kind)
    for row, record in enumerate(records, 1):
        for field, holds, remedy in CHECKS[kind]:
            if not holds(record, path.parent):
                raise UsageError(f"{path}: row {row}, column '{field}': {remedy}")
    return f"{path}: {len(records)} valid {kind.__name__} rows"


def _kind(path: Path) -> type[Any]:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".jsonl":
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        try:
            names = set(json.loads(first))
        except (json.JSONDecodeError, TypeError) as error:
            raise UsageError(f"{path}:1: not a JSON object ({error})") from error
    else:
        try:
            names = set(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{path}: not a Parquet file ({error})") from error
    for kind in KINDS:
        required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if required <= names:
            return kind
    lacking = {k.__name__: sorted(f.name for f in dataclasses.fields(k) if f.name not in names)[:3] for k in KINDS}
    raise UsageError(f"{path}: no table of ours; columns lacking: {lacking}")


def _files(record: Any, folder: Path) -> bool:
    return all((folder / image).is_file() for image in record.images)


def _spans(name: str) -> Callable[[Pair, Path], bool]:
    def holds(pair: Pair, folder: Path) -> bool:
        text, spans = getattr(pair, name), getattr(pair, f"{name}_spans")
        return all(0 <= start <= end <= len(text) for start, end in spans)

    return holds


IMAGES = ("images", _files, "an image file is missing; paths are relative to the table's folder")
CHECKS: dict[type[Any], list[tuple[str, Callable[[Any, Path], bool], str]]] = {
    Example: [
        ("answer", lambda r, _: bool(r.answer.strip()), "the answer is empty"),
        ("task", lambda r, _: r.task in ("closed", "open", "report"), "must be closed, open or report"),
        IMAGES,
    ],
    Pair: [
        ("chosen_spans", _spans("chosen"), "a span lies outside the text"),
        ("rejected_spans", _spans("rejected"), "a span lies outside the text"),
        ("chosen", lambda r, _: r.chosen != r.rejected, "chosen and rejected are the same"),
        IMAGES,
    ],
    Answer: [("token_ids", lambda r, _: bool(r.token_ids), "no token ids")],
    Outcome: [("condition", lambda r, _: bool(r.condition), "no condition")],
}
