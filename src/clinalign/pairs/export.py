"""Pairs in the layouts that other trainers load, spans and provenance riding along.

Image paths are absolute, so that they hold wherever the peer is started; export again after moving a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clinalign.data.messages import IMAGE
from clinalign.data.preferences import FORMATS
from clinalign.errors import UsageError
from clinalign.records import Pair
from clinalign.storage import atomic, read_table, write_json, write_text

ALONG = (
    "id", "example_id", "round", "chosen_spans", "rejected_spans", "own", "was_correct", "edit_kind", "editor",
    "region_source", "corruption", "corruption_area", "sigma",
)  # fmt: skip
"""Columns of ours that every layout keeps as they are; images of ours ride along as paths, the region as JSON text."""


def export(source: Path, to: str, out: Path | None = None) -> Path:
    """Writes the pairs of a run folder (or of a pairs table) in the layout `to`; returns the file that a peer loads.

    Raises `UsageError` for an unknown layout, a missing image, or a text that holds the peers' image placeholder.
    """
    if to not in EXPORTS:
        raise UsageError(f"--to {to}: not a layout; choose one of {', '.join(EXPORTS)}")
    table = source / "corrupted_pairs.parquet" if source.is_dir() else source
    pairs = read_table(table, Pair)
    if not pairs:
        raise UsageError(f"{table}: no pairs; nothing to export")
    for row, pair in enumerate(pairs, 1):
        _check(pair, table, row)
    folder = out or table.parent / "export" / to
    return EXPORTS[to](pairs, table.parent.resolve(), folder)


def _check(pair: Pair, table: Path, row: int) -> None:
    for image in [*pair.images, *(pair.corrupted_images or []), *(pair.control_images or [])]:
        if not (table.parent / image).is_file():
            raise UsageError(f"{table}: row {row}, column 'images': no file {table.parent / image}; restore it")
    for field in ("prompt", "chosen", "rejected"):
        if IMAGE in getattr(pair, field):
            where = f"{table}: row {row}, column '{field}'"
            raise UsageError(f"{where}: holds '{IMAGE}', which peers take for an image; write it otherwise")


def to_trl(pairs: Sequence[Pair], base: Path, folder: Path) -> Path:
    """`train.parquet`: conversational prompt, chosen and rejected, and `images` as a list of the datasets' Image type,
    which opens the files lazily. `datasets.load_dataset("parquet", data_files=...)` gives what DPOTrainer takes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    rows = [_row("TRL", p, base) for p in pairs]
    fields = {"prompt": message, "chosen": message, "rejected": message, "images": image, **_along_types(pa)}
    metadata = {"huggingface": json.dumps({"info": {"features": {n: _feature(t) for n, t in fields.items()}}})}
    path = folder / "train.parquet"
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(fields.items()), metadata=metadata)), temporary)
    return path


def to_llama_factory(pairs: Sequence[Pair], base: Path, folder: Path) -> Path:
    """`clinalign.json` in sharegpt layout with `ranking`, and the `dataset_info.json` that names its columns: give the
    folder as `dataset_dir` and `clinalign` as `dataset`. One `<image>` a picture stands before the question."""
    rows = [_row("LLaMA-Factory", p, base) for p in pairs]
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"}
    info = {"file_name": "clinalign.json", "formatting": "sharegpt", "ranking": True, "columns": columns}
    write_json(folder / "clinalign.json", rows)
    write_json(folder / "dataset_info.json", {"clinalign": info})
    return folder / "clinalign.json"


def to_ms_swift(pairs: Sequence[Pair], base: Path, folder: Path) -> Path:
    """`train.jsonl`: `messages` that end with the chosen answer, `rejected_response`, `images`, and `rejected_images`,
    the corrupted ones where a pair has them; for `swift rlhf --rlhf_type dpo --dataset FILE`. ms-swift scores the
    rejected answer under these (MMedPO's form), so `text.jsonl` beside it has none. Columns that ms-swift does not know
    are dropped by its reader."""
    rows = [_row("ms-swift", p, base) for p in pairs]
    write_text(folder / "text.jsonl", _lines(rows))
    conditional = [{"rejected_images": _paths(p.corrupted_images or p.images, base)} for p in pairs]
    write_text(folder / "train.jsonl", _lines([a | b for a, b in zip(rows, conditional, strict=True)]))
    return folder / "train.jsonl"


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


EXPORTS: dict[str, Callable[[Sequence[Pair], Path, Path], Path]] = {
    "trl": to_trl,
    "llama_factory": to_llama_factory,
    "ms_swift": to_ms_swift,
}
"""Layout -> its writer: pairs, the folder that image paths are relative to, the folder to write into."""


def _row(name: str, pair: Pair, base: Path) -> dict[str, Any]:
    """A pair in a format of `data/preferences.py`, and what rides along."""
    write = FORMATS[name].write
    assert write is not None
    return write(pair, _paths(pair.images, base)) | _along(pair, base)


def _paths(images: Sequence[str] | None, base: Path) -> list[str]:
    return [str(base / image) for image in images or []]


def _along(pair: Pair, base: Path) -> dict[str, Any]:
    out = {name: getattr(pair, name) for name in ALONG}
    out["corrupted_images"] = _paths(pair.corrupted_images, base)
    out["control_images"] = _paths(pair.control_images, base)
    out["region"] = json.dumps(asdict(pair.region), ensure_ascii=False) if pair.region else ""
    return out


def _along_types(pa: Any) -> dict[str, Any]:
    spans, paths = pa.list_(pa.list_(pa.int32())), pa.list_(pa.string())
    special = {"chosen_spans": spans, "rejected_spans": spans, "round": pa.int64(), "sigma": pa.float64()}
    special |= {"was_correct": pa.bool_(), "corrupted_images": paths, "control_images": paths}
    return {name: special.get(name, pa.string()) for name in (*ALONG, "corrupted_images", "control_images", "region")}


def _feature(kind: Any) -> dict[str, Any]:
    """An Arrow type in the words of the datasets library (its metadata in the Parquet file)."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return {"_type": "Image"} if names == ["bytes", "path"] else {f.name: _feature(f.type) for f in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
