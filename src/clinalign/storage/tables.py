"""Records into Parquet or JSONL and back, atomically.

Parquet columns follow the record's fields; free-form dicts (`meta`, `slots`) are JSON text inside, so that the schema
of a table never depends on its rows. Every write goes to a temporary name in the same folder and is renamed, so a
table is either whole or absent.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from clinalign.errors import UsageError, nearest
from clinalign.records import Answer, Example, Measurement, Outcome, Pair, Region, TraceStep
from clinalign.storage.atomic import atomic
from clinalign.storage.rows import Rows

R = TypeVar("R", Example, Answer, Pair, Outcome, Measurement, TraceStep)
TABLE_VERSION = "2"
"""Raised when columns are renamed: a Parquet table of another version is refused in one line."""
VERSION_KEY = b"clinalign.table"
BATCH_ROWS = 2048
JSON_COLUMNS = {"meta", "slots", "metrics", "regions", "region"}


def write_table(path: Path, records: Iterable[R], kind: type[R]) -> int:
    """Writes the records as `.parquet` or `.jsonl` (by suffix) atomically and returns how many there were.

    Records are taken one batch at a time, so a generator of any length needs the memory of a batch; when it raises,
    nothing is written.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"{path}: a table is .parquet or .jsonl, not '{path.suffix}'")
    batches = _batches(records)
    with atomic(path) as temporary:
        return _write_jsonl(temporary, batches) if path.suffix == ".jsonl" else _write_parquet(temporary, batches, kind)


def _batches(records: Iterable[R]) -> Iterator[list[dict[str, Any]]]:
    left = iter(records)
    while rows := [to_row(record) for record in islice(left, BATCH_ROWS)]:
        yield rows


def _write_jsonl(path: Path, batches: Iterable[list[dict[str, Any]]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for rows in batches:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            count += len(rows)
    return count


def _write_parquet(path: Path, batches: Iterable[list[dict[str, Any]]], kind: type) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(kind)
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in batches:
            packed = [_pack(row) for row in rows]
            try:
                table = pa.Table.from_pylist(packed, schema=schema)
            except UnicodeEncodeError:  # half a character in a text: the table must not die of it
                table = pa.Table.from_pylist([_whole(row) for row in packed], schema=schema)
            writer.write_table(table)
            count += len(rows)
    return count


def read_table(path: Path, kind: type[R]) -> list[R]:
    """Reads a table written by `write_table`. A missing file, a wrong schema or a torn row is a `UsageError`."""
    return list(iter_table(path, kind))


def open_table(path: Path, kind: type[R], keep: Callable[[R], bool] | None = None) -> Rows[R]:
    """The rows of a table (that `keep` lets pass), to be read in any order and by id, without holding them in memory.
    Raises as `read_table`."""
    return Rows(filter(keep, iter_table(path, kind)) if keep else iter_table(path, kind))


def iter_table(path: Path, kind: type[R]) -> Iterator[R]:
    """Streams a table in batches, in file order."""
    if not path.is_file():
        raise UsageError(f"{path}: no such table; run the stage that writes it, or check the path")
    yield from _iter_jsonl(path, kind) if path.suffix == ".jsonl" else _iter_parquet(path, kind)


def _iter_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield from_row(json.loads(line), kind)
            except (json.JSONDecodeError, TypeError, KeyError) as error:
                raise UsageError(f"{path}:{number}: not a {kind.__name__} row ({error}); rewrite the table") from error


def _iter_parquet(path: Path, kind: type[R]) -> Iterator[R]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path}: not a Parquet file ({error}); rebuild it with the stage that writes it") from error
    names = set(file.schema_arrow.names)
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in names and _required(f)]
    if missing:
        hint = nearest(missing[0], names)
        raise UsageError(f"{path}: column '{missing[0]}' of a {kind.__name__} table is missing{hint}")
    version = (file.schema_arrow.metadata or {}).get(VERSION_KEY, b"1").decode()
    if version != TABLE_VERSION:
        raise UsageError(
            f"{path}: a table of version {version}, this is version {TABLE_VERSION}; run again into a new folder"
        )
    for batch in file.iter_batches(batch_size=4096):
        for row in batch.to_pylist():
            yield from_row(_unpack(row), kind)


def to_row(record: Any) -> dict[str, Any]:
    """A record as a plain dict, nested records included; other values are the record's own, not copies."""
    return {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], Region):
        return [to_row(region) for region in value]
    return to_row(value) if isinstance(value, Region) else value


def from_row(row: dict[str, Any], kind: type[R]) -> R:
    """A plain dict as a record; unknown columns are ignored, `Region`s are rebuilt."""
    known = {f.name for f in dataclasses.fields(kind)}
    values = {name: value for name, value in row.items() if name in known}
    if values.get("regions"):
        values["regions"] = [Region(**region) for region in values["regions"]]
    if values.get("region"):
        values["region"] = Region(**values["region"])
    return kind(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _pack(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.dumps(v, ensure_ascii=False, sort_keys=True) if k in JSON_COLUMNS else v for k, v in row.items()}


def _whole(value: Any) -> Any:
    """The same with a question mark for each half of a character."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole(below) for below in value]
    return {k: _whole(v) for k, v in value.items()} if isinstance(value, dict) else value


def _unpack(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in JSON_COLUMNS and v is not None else v for k, v in row.items()}


def _schema(kind: type) -> Any:
    import pyarrow as pa

    plain = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "float | None": pa.float64(),
        "bool": pa.bool_(),
        "bool | None": pa.bool_(),
    }
    nested = {
        "list[str]": pa.list_(pa.string()),
        "list[str] | None": pa.list_(pa.string()),
        "list[list[str]]": pa.list_(pa.list_(pa.string())),
        "list[int]": pa.list_(pa.int32()),
        "list[Span]": pa.list_(pa.list_(pa.int32())),
    }
    types = plain | nested
    return pa.schema(
        [(f.name, pa.string() if f.name in JSON_COLUMNS else types[str(f.type)]) for f in dataclasses.fields(kind)],
        metadata={VERSION_KEY: TABLE_VERSION},
    )
