"""Records into Parquet or JSONL and back, atomically; the quarantine.

Parquet columns follow the record's fields; free-form dicts (`meta`, `slots`) are JSON text inside, so that the schema
of a table never depends on its rows. Every write goes to a temporary name in the same folder and is renamed, so a
table is either whole or absent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from clinalign.errors import UsageError, nearest
from clinalign.records import Answer, Example, Outcome, Pair, Region

R = TypeVar("R", Example, Answer, Pair, Outcome)
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
    with path.open("w", encoding="utf-8") as file:
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
            writer.write_table(pa.Table.from_pylist([_pack(row) for row in rows], schema=schema))
            count += len(rows)
    return count


def read_table(path: Path, kind: type[R]) -> list[R]:
    """Reads a table written by `write_table`. A missing file, a wrong schema or a torn row is a `UsageError`."""
    return list(iter_table(path, kind))


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


def _unpack(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in JSON_COLUMNS and v is not None else v for k, v in row.items()}


def _schema(kind: type) -> Any:
    import pyarrow as pa

    plain = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "bool | None": pa.bool_(),
    }
    nested = {
        "list[str]": pa.list_(pa.string()),
        "list[str] | None": pa.list_(pa.string()),
        "list[int]": pa.list_(pa.int32()),
        "list[Span]": pa.list_(pa.list_(pa.int32())),
    }
    types = plain | nested
    return pa.schema(
        [(f.name, pa.string() if f.name in JSON_COLUMNS else types[str(f.type)]) for f in dataclasses.fields(kind)]
    )


class atomic:
    """`with atomic(path) as temporary:` write to `temporary`; it is renamed to `path` only when the block succeeds."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.part")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, keys in insertion order; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Journal:
    """Rows a long stage has finished so far, one JSON line each, so that a killed stage goes on where it was.

    A line cut short by the kill is dropped. `key` names the fields that identify a row. The stage removes the journal
    (`close`) once its table is written.
    """

    def __init__(self, path: Path, kind: type[Any], key: tuple[str, ...]) -> None:
        self.path, self.key = path, key
        self.rows: dict[tuple[Any, ...], Any] = {}
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                record = from_row(json.loads(line), kind)
                self.rows[tuple(getattr(record, name) for name in key)] = record
                whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self.rows

    def add(self, records: Iterable[Any]) -> None:
        """Appends the records and flushes them to disk."""
        for record in records:
            self.rows[tuple(getattr(record, name) for name in self.key)] = record
            self._file.write(json.dumps(to_row(record), ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self, *, remove: bool = True) -> None:
        """Closes the journal and, by default, removes it."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)


class Quarantine:
    """`quarantine.jsonl`: every record that was left out, with stage, file, row, field, reason and remedy.

    Rows are held in memory per stage and written at `flush`, which replaces that stage's earlier rows: a stage that
    runs again after a kill does not report a record twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]

    def start(self, stage: str) -> None:
        """Forgets what `stage` reported before; call when the stage starts over."""
        self.rows = [row for row in self.rows if row["stage"] != stage]

    def add(
        self,
        stage: str,
        *,
        reason: str,
        file: str = "",
        row: int | None = None,
        id: str = "",
        field: str = "",
        detail: str = "",
    ) -> None:
        """Leaves one record out. `row` is 1-based, header not counted."""
        self.rows.append(
            {"stage": stage, "file": file, "row": row, "id": id, "field": field, "reason": reason, "detail": detail}
        )

    def count(self, stage: str | None = None) -> int:
        """How many records were left out, in one stage or in all."""
        return sum(stage in (None, row["stage"]) for row in self.rows)

    def flush(self) -> None:
        """Writes the file atomically."""
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))
