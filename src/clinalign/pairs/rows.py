"""Preference corpora of any common layout as rows of two texts, for the audit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.records import Pair, Span
from clinalign.storage import filled_lines, from_row, is_file, parse_json, read_text

PLACEHOLDER = re.compile(r"<(?:image|video)>\s*")
MASK = re.compile(r"<MASK>\s?((?:(?!<MASK>).)*?)\s?</MASK>", re.S)


@dataclass(slots=True)
class Row:
    """One preference pair of any corpus. Spans are None where the corpus marks none; `pair` is ours, where it is ours.

    `images` are paths as written; `folder` is what they are relative to.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    images: tuple[str, ...]
    folder: Path
    patient: str = ""
    spans: tuple[list[Span], list[Span]] | None = None
    pair: Pair | None = None

    @property
    def group(self) -> str:
        """Pairs of one prompt on the same images are not independent."""
        return "\n".join((self.prompt, *self.images))


@dataclass(slots=True)
class Corpus:
    """The rows of a file, its layout by name, and what could not be read (row number and why)."""

    layout: str
    rows: list[Row]
    unreadable: list[tuple[int, str]]


def rows_of(pairs: Sequence[Pair], folder: Path, patients: dict[str, str] | None = None) -> list[Row]:
    """Our own pairs as rows; `patients` gives the patient of an example."""
    known = patients or {}
    return [
        Row(
            id=p.example_id,
            prompt=p.prompt,
            chosen=p.chosen,
            rejected=p.rejected,
            images=tuple(p.images),
            folder=folder,
            patient=known.get(p.example_id, ""),
            spans=(p.chosen_spans, p.rejected_spans),
            pair=p,
        )
        for p in pairs
    ]


def read_corpus(path: Path) -> Corpus:
    """A preference file: our pairs table, or TRL, LLaMA-Factory, ms-swift, MMedPO (LLaVA) or RRPO rows.

    `.json` (one list), `.jsonl` or `.parquet`. Raises `UsageError` where the file is none of them or no row is usable.
    """
    rows: list[Row] = []
    unreadable: list[tuple[int, str]] = []
    layout = ""
    for number, raw in enumerate(_raw(path), 1):
        name = layout_of(raw)
        if name is None:
            unreadable.append((number, "no known preference layout"))
            continue
        try:
            row = LAYOUTS[name][1](raw)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            unreadable.append((number, f"not a {name} row ({type(error).__name__}: {error})"))
            continue
        row.folder, row.id = path.parent, row.id or str(number)
        layout = layout or name
        rows.append(row)
    if not rows:
        why = f" (row {unreadable[0][0]}: {unreadable[0][1]})" if unreadable else ""
        known = ", ".join(LAYOUTS)
        raise UsageError(f"{path}: no preference pair{why}; an audit reads {known}, see docs/corpora.md")
    return Corpus(layout, rows, unreadable)


def _raw(path: Path) -> Iterator[dict[str, Any]]:
    if not is_file(path):
        raise UsageError(f"{path}: no such file; give a preference file, or the folder of a run")
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    if path.suffix not in (".json", ".jsonl"):
        raise UsageError(f"{path}: a preference file is .parquet, .jsonl or .json, not '{path.suffix}'")
    try:
        found = parse_json(read_text(path).strip("\ufeff")) if path.suffix == ".json" else None
        lines = [] if path.suffix == ".json" else list(filled_lines(path))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON in UTF-8 ({error})") from error
    if path.suffix == ".json":
        if not isinstance(found, list):
            raise UsageError(f"{path}: a preference file in .json is one list of objects, not {type(found).__name__}")
        yield from found
        return
    for number, line in lines:
        try:
            yield parse_json(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: not a JSON object ({error}); rewrite the file") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path}: not a Parquet file ({error})") from error
    for batch in file.iter_batches(batch_size=4096):
        yield from batch.to_pylist()


def layout_of(raw: Any) -> str | None:
    """The layout of one raw row, by its columns."""
    if not isinstance(raw, dict):
        return None
    return next((name for name, (columns, _) in LAYOUTS.items() if columns <= raw.keys()), None)


def _ours(raw: dict[str, Any]) -> Row:
    region = raw.get("region")
    region = json.loads(region) if isinstance(region, str) else region  # a table keeps it as JSON text
    return rows_of([from_row(raw | {"region": region}, Pair)], Path())[0]


def _trl(raw: dict[str, Any]) -> Row:
    """Standard (texts) or conversational; without `prompt` both sides begin with the conversation they share."""
    chosen, rejected, prompt = raw["chosen"], raw["rejected"], raw.get("prompt") or []
    if not isinstance(chosen, str) and not raw.get("prompt"):
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return _row(raw, _said(prompt), _said(chosen), _said(rejected))


def _llama_factory(raw: dict[str, Any]) -> Row:
    return _row(raw, _said(raw["conversations"]), _said([raw["chosen"]]), _said([raw["rejected"]]))


def _ms_swift(raw: dict[str, Any]) -> Row:
    *prompt, last = raw["messages"]
    rejected = raw["rejected_response"]
    return _row(raw, _said(prompt), _said([last]), rejected if isinstance(rejected, str) else _said(rejected))


def _mmedpo(raw: dict[str, Any]) -> Row:
    *prompt, chosen = raw["conversations"]
    return _row(raw, _said(prompt), _said([chosen]), _said([raw["rejected_conversations"][-1]]))


def _rrpo(raw: dict[str, Any]) -> Row:
    row = _row(raw, raw["question"], raw["answer"], raw["pred"])
    masked = raw.get("answer_masked"), raw.get("pred_masked")
    if all(isinstance(text, str) for text in masked):
        found = [_marked(text or "", plain) for text, plain in zip(masked, (row.chosen, row.rejected))]
        row.spans = (found[0], found[1])
    return row


def _marked(masked: str, plain: str) -> list[Span]:
    """Character spans of the phrases between <MASK> tags in the text without them, in order; none where they differ."""
    spans: list[Span] = []
    at = 0
    for phrase in MASK.findall(masked):
        start = plain.find(phrase, at)
        if start < 0:
            return []
        at = start + len(phrase)
        spans.append([start, at])
    return spans


def _row(raw: dict[str, Any], prompt: str, chosen: str, rejected: str) -> Row:
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise TypeError("a side is not a text")
    spans = raw.get("chosen_spans"), raw.get("rejected_spans")
    pictures = next((raw[name] for name in ("images", "image", "video", "media_path") if raw.get(name)), None)
    return Row(
        id=str(raw.get("example_id", raw.get("id", raw.get("sample_id", "")))),
        prompt=PLACEHOLDER.sub("", prompt).strip(),
        chosen=chosen.strip(),
        rejected=rejected.strip(),
        images=tuple(_image(i) for i in _list(pictures)),
        folder=Path(),
        patient=str(raw.get("patient_id") or ""),
        spans=(spans[0], spans[1]) if spans[0] is not None and spans[1] is not None else None,
    )


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _image(value: Any) -> str:
    """A path; an embedded image goes by its bytes."""
    if isinstance(value, dict):
        import hashlib

        data = value.get("bytes")
        return value.get("path") or (f"sha256:{hashlib.sha256(data).hexdigest()}" if data else "")
    return str(value)


def _said(messages: Any) -> str:
    """The text of a string or of messages ({"role", "content"} or {"from", "value"}; content may be parts)."""
    if isinstance(messages, str):
        return messages
    texts = []
    for message in messages:
        content = message.get("content", message.get("value"))
        if isinstance(content, list):
            content = " ".join(part.get("text") or "" for part in content if part.get("type", "text") == "text")
        texts.append(content)
    return "\n".join(texts)


LAYOUTS: dict[str, tuple[frozenset[str], Callable[[dict[str, Any]], Row]]] = {
    "clinalign": (frozenset({"chosen", "rejected", "chosen_token_ids", "was_correct", "edit_kind"}), _ours),
    "MMedPO": (frozenset({"conversations", "rejected_conversations"}), _mmedpo),
    "LLaMA-Factory": (frozenset({"conversations", "chosen", "rejected"}), _llama_factory),
    "ms-swift": (frozenset({"messages", "rejected_response"}), _ms_swift),
    "RRPO": (frozenset({"question", "answer", "pred"}), _rrpo),
    "TRL": (frozenset({"chosen", "rejected"}), _trl),
}
"""Layout -> the columns that tell it, and its reader; the first that fits."""
