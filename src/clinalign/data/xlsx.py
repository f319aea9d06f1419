"""Rows of an Excel workbook: the first sheet that holds anything, its first filled row the header.

A cell counts as it is shown by its value: whole numbers without a point, dates in ISO form, truth values as yes and
no, formulas by the value that was saved with them. Excel's errors (`#REF!`) cost their row.
"""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.progress import say

LARGEST = 1 << 30
"""Bytes that a workbook may unpack to."""
ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")


def xlsx_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """(row number from 1 below the header, row) pairs. Raises `UsageError` without openpyxl, for a file that is no
    workbook, one that is locked by a password or unpacks to too much, and for a header that is none."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UsageError("reading XLSX needs openpyxl; install it with: pip install 'clinalign[xlsx]'") from error
    _check(path)
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged part makes the reader stumble over anything
        raise UsageError(f"{path}: not an Excel workbook ({type(error).__name__}); save it again as .xlsx") from error
    try:
        sheets = [sheet for sheet in book.worksheets if _first(sheet) is not None]
        if not sheets:
            raise UsageError(f"{path}: no sheet holds anything; add a header and rows")
        if len(sheets) > 1:
            say(f"{path.name}: {len(sheets)} sheets hold something; '{sheets[0].title}', the first, is read")
        yield from _rows(path, sheets[0])
    finally:
        book.close()


def _check(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(8) == bytes.fromhex("d0cf11e0a1b11ae1"):
            raise UsageError(f"{path}: locked by a password, or an old .xls; save it as .xlsx without a password")
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(one.file_size for one in packed.infolist())
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UsageError(f"{path}: not an Excel workbook, or damaged; save it again as .xlsx") from error
    if size > LARGEST:
        raise UsageError(f"{path}: unpacks to {size >> 20} MiB, more than {LARGEST >> 20}; save it as CSV or Parquet")


def _first(sheet: Any) -> tuple[Any, ...] | None:
    """The first row in which a cell is filled."""
    return next((row for row in sheet.iter_rows(values_only=True) if any(cell is not None for cell in row)), None)


def _rows(path: Path, sheet: Any) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    filled = (row for row in sheet.iter_rows(values_only=True) if any(cell is not None for cell in row))
    header = ["" if cell is None else str(cell).strip() for cell in next(filled)]
    while header and not header[-1]:
        header.pop()
    if "" in header:
        raise UsageError(f"{path}: column {header.index('') + 1} of the header is empty; give it a name")
    if len(set(header)) < len(header):
        raise UsageError(f"{path}: two columns have one name; rename one")
    for number, cells in enumerate(filled, 1):
        beyond = [cell for cell in cells[len(header) :] if cell is not None]
        row = dict(zip(header, [_value(cell) for cell in cells] + [""] * len(header)))
        broken = next((name for name, value in row.items() if value in ERRORS), None)
        if beyond:
            yield number, RowError("row", "wrong_cell_count", f"{len(header)} cells expected, there are more")
        elif broken is not None:
            yield number, RowError(broken, "excel_error", "the cell holds an error of Excel; mend its formula")
        else:
            yield number, row


def _value(cell: Any) -> Any:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return cell.isoformat() if isinstance(cell, datetime.date | datetime.time | datetime.datetime) else cell
