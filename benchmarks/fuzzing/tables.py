"""Tables of good rows among hostile ones, in every format."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzing import cells
from fuzzing.base import good_row, kept
from fuzzing.worker import Case

ROWS, GOOD = 40, 24
COLUMNS = (
    "image images question answer task box mask mask_value label patient_id split id modality window frame rejected "
    "finding slot slots kind prior full counterfactual"
).split()
FORMATS = ("csv", "jsonl", "parquet", "json", "tsv", "csv.gz", "llava.jsonl", "trl.jsonl")


def cases(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """Calls of ingest over `count` rows; an empty image cell, about which a run asks, is text alone here."""
    for number in range(-(-count // ROWS)):
        kind = FORMATS[number % len(FORMATS)]
        path = base / f"table.{kind.removeprefix('llava.').removeprefix('trl.')}"
        rows: list[dict[str, Any] | str] = [good_row(n) for n in range(GOOD)]
        rows += [_bad(n, draw) for n in range(GOOD, ROWS)]
        draw.shuffle(rows)
        source = "table"
        if kind.startswith(("llava", "trl")):
            source = kind.partition(".")[0]
            rows = [_talk(row, source, draw) if isinstance(row, dict) else row for row in rows]
        _write(path, rows, draw, plain=source == "table")
        out = base / "out"
        shutil.rmtree(out, ignore_errors=True)
        given = ["data.leaks=allow", "data.empty_image=text", f"data.source={source}", f"data.path={path}"]
        yield Case(
            "rows",
            ROWS,
            ["ingest", str(base / "fuzz.yaml"), *given, "--out", str(out)],
            codes=(0,),
            lost=lambda out=out: kept(out, GOOD),
            note=f"{kind} {number}",
        )


def _bad(number: int, draw: random.Random) -> dict[str, Any] | str:
    row: dict[str, Any] = good_row(number) | {"question": f"Is there a bad nodule {number}?", "id": f"bad-{number}"}
    for name in draw.sample(COLUMNS, draw.randrange(1, 4)):
        row[name] = cells.value(draw)
    return row


def _talk(row: dict[str, Any], source: str, draw: random.Random) -> dict[str, Any]:
    """A row as a conversation; of a bad one, some part is spoilt."""
    image = [row["image"]] if isinstance(row.get("image"), str) and row["image"] else []
    content: Any = [{"type": "image", "image": name} for name in image] + [{"type": "text", "text": row["question"]}]
    talk: Any = [{"role": "user", "content": content}, {"role": "assistant", "content": row["answer"]}]
    if str(row.get("id", "")).startswith("good-"):
        return {"id": row["id"], "split": row["split"], "messages": talk}
    place = draw.randrange(6)
    if place == 0:
        talk = cells.value(draw)
    elif place == 1:
        talk.insert(draw.randrange(3), cells.value(draw))
    elif place == 2:
        content.append(
            {"type": draw.choice(("image", "image_url", "video", "text", "", "x")), "image_url": cells.value(draw)}
        )
    elif place == 3:
        talk[draw.randrange(2)]["content"] = cells.value(draw)
    elif place == 4:
        talk[draw.randrange(2)][draw.choice(("role", "from", "images"))] = cells.value(draw)
    out = {"messages": talk, "images": cells.value(draw)} if place == 5 else {"messages": talk}
    return out | {"split": "train"}


def _write(path: Path, rows: list[Any], draw: random.Random, *, plain: bool) -> None:
    name = path.name
    if ".parquet" in name:
        _parquet(path, rows, draw)
    elif name.endswith((".jsonl", ".json")):
        lines = [json.dumps(row) for row in rows]
        for index, row in enumerate(rows):
            if not _good(row) and draw.random() < 0.3:
                lines[index] = _spoilt_line(lines[index], draw, array=name.endswith(".json"))
        whole = "[" + ",\n".join(lines) + "]" if name.endswith(".json") else "\n".join(lines) + "\n"
        encoding = "utf-8" if whole[0] == "\0" else draw.choice(("utf-8", "utf-8", "utf-16"))  # a NUL looks like UTF-32
        path.write_text(draw.choice(("", "", "\ufeff")) + whole, encoding=encoding)
    else:
        data = _csv(rows, "\t" if ".tsv" in name else ",", draw).encode(draw.choice(("utf-8", "utf-8-sig", "utf-16")))
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def _good(row: Any) -> bool:
    return isinstance(row, dict) and str(row.get("id", "")).startswith("good-")


def _spoilt_line(line: str, draw: random.Random, *, array: bool) -> str:
    if array:  # what is no JSON at all ends the file, as it must; a value of a kind that breaks readers may not
        return (
            line[:-1]
            + ', "label": '
            + draw.choice(("9" * 5000, "[" * cells.DEEP + "]" * cells.DEEP, '"\\ud800"'))
            + "}"
        )
    at = draw.randrange(len(line))
    return draw.choice(
        (line[:at], line[at:], line[:-1] + ', "label": ' + cells.raw_json(draw) + "}", "null", "[]", "\0")
    )


def _csv(rows: list[Any], delimiter: str, draw: random.Random) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        if not _good(row) and draw.random() < 0.2:
            out.write(draw.choice(('a.png,"stray" quote,x', "a,b", '"never closed', "," * 60, 'x"y"z')) + "\n")
        else:
            clean = {k: str(v) if v is not None else "" for k, v in row.items()}
            writer.writerow({k: v.replace("\r", " ") for k, v in clean.items()})
    return out.getvalue()


def _parquet(path: Path, rows: list[Any], draw: random.Random) -> None:
    """Texts in the known columns; a used one and an unused one of a type of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    strange: list[Any] = [
        pa.array([datetime.date(2024, 1, 1)] * len(rows)),
        pa.array([2**62] * len(rows), pa.timestamp("us")),
        pa.array([1] * len(rows), pa.timestamp("ns")),
        pa.array([decimal.Decimal("1.50")] * len(rows)),
        pa.array([datetime.timedelta(1)] * len(rows)),
        pa.array([b"\xff\xfe"] * len(rows)),
        pa.array([{"a": [1, None]}] * len(rows)),
        pa.array([[("k", 1)]] * len(rows), pa.map_(pa.string(), pa.int64())),
        pa.array(["x"] * len(rows)).dictionary_encode(),
        pa.array([float("nan")] * len(rows)),
        pa.nulls(len(rows)),
    ]
    used = draw.choice(COLUMNS[6:])
    columns = {name: pa.array([_cell(row.get(name)) for row in rows], pa.string()) for name in COLUMNS}
    odd = draw.choice(strange)
    keep = pa.array([not _good(row) for row in rows])
    if not isinstance(odd.type, pa.DictionaryType | pa.MapType) and used not in ("patient_id", "split", "id"):
        columns[used] = pa.compute.if_else(keep, odd, pa.nulls(len(rows), odd.type))
    columns["not used"] = draw.choice(strange)
    pq.write_table(pa.table(columns), path)


def _cell(value: Any) -> str | None:
    return None if value is None else str(value)
