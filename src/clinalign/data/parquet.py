"""Rows of a Parquet file. A value that Python cannot hold costs its row, and only where its column is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.errors import UsageError

BATCH = 1024


class Unread(NamedTuple):
    """Stands for a cell that could not be turned into a Python value; `kind` is the column's type."""

    kind: str


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in order. Raises `UsageError` for a file that is no Parquet, or is damaged further on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if len(set(names)) < len(names):
            raise UsageError(f"{path}: two columns have one name; rename one")
        for batch in table.iter_batches(batch_size=BATCH):
            columns = {name: _values(column) for name, column in zip(names, batch.columns)}
            for index in range(batch.num_rows):
                number += 1
                yield {name: values[index] for name, values in columns.items()}
    except (pa.ArrowException, OSError, EOFError, ValueError, RecursionError, MemoryError) as error:
        where = f"damaged after row {number}" if number else "not a Parquet file"
        raise UsageError(f"{path}: {where} ({type(error).__name__}); export it again") from error


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except Exception:  # dates beyond Python's, nanoseconds, text that is not UTF-8: each type raises its own
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except Exception:
        return Unread(str(cell.type))
