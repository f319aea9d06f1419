"""`clinalign init`: a commented recipe out of a table and a model, its columns guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.storage import user_path, write_text

ROWS = 200
"""Rows that are looked at."""
NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "images", "image_path", "image_file", "image_name", "img", "img_name", "img_path", "file",
              "filename", "file_name", "path", "dicom", "dicom_path"),
    "question": ("question", "prompt", "query", "instruction"),
    "answer": ("answer", "response", "ground_truth", "gt", "reference", "target"),
    "patient_id": ("patient_id", "patient", "patientid", "subject_id", "subject", "pid"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "box": ("box", "bbox", "bounding_box"),
    "mask": ("mask", "mask_path", "segmentation"),
}  # fmt: skip
"""Our columns, and what others call them."""
NEEDED = ("image", "question", "answer")
LABELS = {"", "0", "1", "-1", "0.0", "1.0", "-1.0", "yes", "no", "true", "false"}
FEWEST_LABELS = 1


def write_recipe(data: str, model: str, out: Path, columns: Mapping[str, str]) -> str:
    """Writes a recipe for a table and says what to do next. `columns` (ours: theirs) win over what is guessed.

    Raises `UsageError` where two columns fit, one that is needed is not found, the table cannot be read, or `out` is
    there already.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already; choose another --out")
    sample = _sample(data)
    chosen = _columns(data, list(sample[0]), columns)
    missing = [name for name in NEEDED if name not in chosen]
    findings = _findings(sample, set(chosen.values())) if missing == ["question", "answer"] else []
    if missing and not findings:
        there = ", ".join(sample[0])
        raise UsageError(f"{data}: no column for {missing[0]}; name it with --column {missing[0]}=... (there: {there})")
    write_text(out, _text(data, model, chosen, findings))
    named = ", ".join(f"{ours}: {theirs}" for ours, theirs in chosen.items())
    return f"{out}: {named}{f', findings: {len(findings)}' if findings else ''}\nnext: clinalign check {out}"


def _sample(data: str) -> list[dict[str, Any]]:
    from clinalign.data.files import raw_rows

    path = user_path(data)
    if not path.is_file():
        raise UsageError(f"{data}: no such file; init takes a table (CSV, TSV, JSON, JSONL, Parquet)")
    rows = [row for _, row in islice(raw_rows(path), ROWS) if not isinstance(row, RowError)]
    if not rows:
        raise UsageError(f"{data}: no usable row in the first {ROWS}; `clinalign check {data}` says why")
    return rows


def _columns(data: str, there: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """Ours to theirs: what is given, then the name that fits; an exact name wins over another that fits too."""
    strange = [name for name in given.values() if name not in there]
    if strange:
        raise UsageError(f"{data}: no column '{strange[0]}' (there: {', '.join(there)})")
    chosen: dict[str, str] = dict(given)
    for ours, names in NAMES.items():
        fits = [name for name in there if _plain(name) in names and name not in chosen.values()]
        if ours in chosen or not fits:
            continue
        exact = [name for name in fits if name == ours or (ours == "image" and name == "images")]
        if len(fits) > 1 and len(exact) != 1:
            several = " or ".join(f"--column {ours}={name}" for name in fits)
            raise UsageError(f"{data}: columns {' and '.join(fits)} both fit {ours}; say which: {several}")
        chosen[ours] = (exact or fits)[0]
    return chosen


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _findings(sample: list[dict[str, Any]], taken: set[str]) -> list[str]:
    """Columns that hold labels alone, and one yes and no at least."""
    found = []
    for name in sample[0]:
        values = {str(row.get(name, "")).strip().lower() for row in sample}
        if name not in taken and values <= LABELS and len(values - {"", "-1", "-1.0"}) > FEWEST_LABELS:
            found.append(name)
    return found


def _text(data: str, model: str, chosen: Mapping[str, str], findings: list[str]) -> str:
    renamed = {
        ours: theirs for ours, theirs in chosen.items() if theirs != ours and (ours, theirs) != ("image", "images")
    }
    if chosen.get("image") == "images":
        renamed.pop("image", None)
    lines = [
        "# Every key and its default: clinalign options, or docs/options.md. Before it runs: clinalign check FILE",
        f"name: {_quoted(Path(data).stem)}",
        f"model: {_quoted(model)}",
        "dtype: float32                  # bfloat16 on a GPU",
        "data:",
        "  source: table",
        f"  path: {_quoted(data)}",
        "  # images: /path              # where image paths start from, if not beside the table",
        "  empty_image: ask              # text: a row without an image is a question of its own; drop: left out",
    ]
    lines += [f"  columns: {json.dumps(renamed, ensure_ascii=False)}"] if renamed else []
    lines += [f"  findings: {json.dumps(findings, ensure_ascii=False)}"] if findings else []
    lines += ['  template: "Is there {finding}?"'] if findings else []
    if "split" not in chosen:
        lines.append("  splits: {align: 0.8, test: 0.2}   # shares of the patients")
    if "patient_id" not in chosen:
        lines.append("  # no column names the patient: each image stands for one (columns: {patient_id: ...})")
    return "\n".join(
        [
            *lines,
            "align:",
            "  method: firempo               # the published settings: beta 0.1, LoRA 128, lr 1e-6, one epoch",
            "  batch: 8                      # pairs a step",
            "  micro_batch: 1                # pairs in memory at once; does not change the numbers",
            "compare:                        # trained on the same pairs, measured beside it",
            "  dpo: {method: dpo}",
            "  sft: {method: sft}",
            "evaluate:",
            "  split: test                   # choose settings on dev, read test once",
            "",
        ]
    )


def _quoted(text: str) -> str:
    """A text as YAML takes it whatever is in it."""
    return text if re.fullmatch(r"[A-Za-z0-9_./-]*[A-Za-z_/][A-Za-z0-9_./-]*", text) else json.dumps(text)
