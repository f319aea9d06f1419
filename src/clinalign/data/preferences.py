"""Every preference format, read and written once: sources make rows of it, the audit reads it, exports write it.

TRL (texts or messages, with or without `prompt`), LLaMA-Factory (sharegpt with `ranking`), ms-swift, MMedPO (arXiv
2412.06141: LLaVA conversations with a rejected one beside each and a clinical weight), RRPO (arXiv 2504.12083: answer
and prediction, the differing phrases in <MASK> tags) and our own pairs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.data.cells import Cells, text
from clinalign.data.messages import IMAGE, Said, answer_of, images_of, messages_of, task_of
from clinalign.data.parsers import parquet_rows
from clinalign.errors import RowError, UsageError
from clinalign.records import PLACE, Pair, Span
from clinalign.storage import Mapped, Rows, filled_lines, from_row, is_file, parse_json, read_text

PLACEHOLDER = re.compile(r"<(?:image|video)>\s*")
MARKED = re.compile(r"<MASK>\s?((?:(?!<MASK>).)*?)\s?</MASK>", re.DOTALL)


@dataclass(slots=True)
class Preference:
    """One preference of any format. Spans are None where the file marks none; `pair` is ours, where it is ours.

    `prompt` is without placeholders; `images` are paths as written, relative to `folder`. `asked` are the messages of
    the prompt, role and content, and `raw` the row, for the ingest.
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
    asked: list[tuple[str, Said]] = field(default_factory=list)
    raw: Cells = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Preferences of one prompt on the same images are not independent."""
        return "\n".join((self.prompt, *self.images))

    def cells(self) -> Cells:
        """The row under our column names, for the ingest: the chosen answer is the truth, the rejected one beside it.

        Raises `RowError` where there is more than one question, a side is empty, or both are the same.
        """
        if any(role != "user" for role, _ in self.asked):
            raise RowError("prompt", "several_turns", "one question a row; split the conversation")
        question = "\n".join(message.text for _, message in self.asked)
        for name, value in (("question", question), ("chosen", self.chosen), ("rejected", self.rejected)):
            if not value.strip():
                raise RowError(name, f"empty_{name}", "fill it or delete the row")
        if self.chosen == self.rejected:
            raise RowError("rejected", "same_as_chosen", "the two sides are the same; there is nothing to prefer")
        sides = {"question": question, "answer": self.chosen, "rejected": self.rejected}
        images = images_of(self.raw, [image for _, message in self.asked for image in message.images])
        return sides | task_of(self.chosen) | images


@dataclass(slots=True)
class Corpus:
    """The preferences of a file, their format by name, and what could not be read (row number and why)."""

    format: str
    rows: Sequence[Preference]
    unreadable: list[tuple[int, str]]


class Format(NamedTuple):
    """A format: the columns that tell it, its reader, and its writer of (pair, absolute paths of its images)."""

    columns: frozenset[str]
    read: Callable[[Cells], Preference]
    write: Callable[[Pair, Sequence[str]], dict[str, Any]] | None = None


def preferences_of(
    pairs: Sequence[Pair], folder: Path, patient: Callable[[str], str] = lambda _: ""
) -> Sequence[Preference]:
    """Our own pairs as preferences, each made when it is asked for; `patient` gives that of an example, by its id."""
    return Mapped(pairs, lambda pair: _preference_of(pair, folder, patient(pair.example_id)))


def _preference_of(pair: Pair, folder: Path, patient: str = "") -> Preference:
    return Preference(
        id=pair.example_id,
        prompt=pair.prompt,
        chosen=pair.chosen,
        rejected=pair.rejected,
        images=tuple(pair.images),
        folder=folder,
        patient=patient,
        spans=(pair.chosen_spans, pair.rejected_spans),
        pair=pair,
    )


def read_corpus(path: Path) -> Corpus:
    """A preference file of any format: `.json` (one list), `.jsonl` or `.parquet`.

    Raises `UsageError` where the file is none of them or no row is usable.
    """
    rows: Rows[Preference] = Rows()
    unreadable: list[tuple[int, str]] = []
    found = ""
    for number, raw in enumerate(_raw(path), 1):
        name = format_of(raw)
        if name is None:
            unreadable.append((number, "no known preference format"))
            continue
        try:
            row = FORMATS[name].read(raw)
        except RowError as error:
            unreadable.append((number, f"not a {name} row ({error.field}: {error.detail})"))
            continue
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            unreadable.append((number, f"not a {name} row ({type(error).__name__}: {error})"))
            continue
        row.folder, row.id = path.parent, row.id or str(number)
        found = found or name
        rows.append(row)
    if not rows:
        why = f" (row {unreadable[0][0]}: {unreadable[0][1]})" if unreadable else ""
        known = ", ".join(FORMATS)
        raise UsageError(f"{path}: no preference pair{why}; an audit reads {known}, see docs/corpora.md")
    return Corpus(found, rows, unreadable)


def _raw(path: Path) -> Iterator[Any]:
    if not is_file(path):
        raise UsageError(f"{path}: no such file; give a preference file, or the folder of a run")
    if path.suffix == ".parquet":
        yield from parquet_rows(path)
        return
    if path.suffix not in (".json", ".jsonl"):
        raise UsageError(f"{path}: a preference file is .parquet, .jsonl or .json, not '{path.suffix}'")
    try:
        listed = parse_json(read_text(path).strip("\ufeff")) if path.suffix == ".json" else None
        lines = [] if path.suffix == ".json" else list(filled_lines(path))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON in UTF-8 ({error})") from error
    if path.suffix == ".json":
        if not isinstance(listed, list):
            raise UsageError(f"{path}: a preference file in .json is one list of objects, not {type(listed).__name__}")
        yield from listed
        return
    for number, line in lines:
        try:
            yield parse_json(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: not a JSON object ({error}); rewrite the file") from error


def format_of(raw: Any) -> str | None:
    """The format of one raw row, by its columns."""
    if not isinstance(raw, dict):
        return None
    return next((name for name, known in FORMATS.items() if known.columns <= raw.keys()), None)


def _ours(raw: Cells) -> Preference:
    region = raw.get("region")
    region = json.loads(region) if isinstance(region, str) else region  # a table keeps it as JSON text
    return _preference_of(from_row(raw | {"region": region}, Pair), Path())


def read_trl(raw: Cells) -> Preference:
    """Texts or messages; without `prompt` both sides begin with the conversation they share."""
    for name in ("chosen", "rejected"):
        if raw.get(name) is None:
            raise RowError(name, f"empty_{name}", "fill it or delete the row")
    chosen, rejected, prompt = raw["chosen"], raw["rejected"], raw.get("prompt")
    if not prompt and isinstance(chosen, list) and isinstance(rejected, list):
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return _preference(raw, prompt, chosen, rejected)


def _llama_factory(raw: Cells) -> Preference:
    return _preference(raw, raw["conversations"], [raw["chosen"]], [raw["rejected"]])


def _ms_swift(raw: Cells) -> Preference:
    *prompt, last = raw["messages"]
    return _preference(raw, prompt, [last], raw["rejected_response"])


def read_mmedpo(raw: Cells) -> Preference:
    """Two conversations that share all but their last message."""
    *prompt, chosen = raw["conversations"]
    return _preference(raw, prompt, [chosen], raw["rejected_conversations"][-1:])


def read_rrpo(raw: Cells) -> Preference:
    """Answer and prediction; one that is missing is its marked text without the marks."""
    chosen, rejected = (
        text(raw, name) or " ".join(MARKED.sub(r" \1 ", text(raw, f"{name}_masked")).split())
        for name in ("answer", "pred")
    )
    row = _preference(raw, raw.get("question"), chosen, rejected)
    if all(isinstance(raw.get(name), str) for name in ("answer_masked", "pred_masked")):
        row.spans = (_marked(raw["answer_masked"], row.chosen), _marked(raw["pred_masked"], row.rejected))
    return row


def _marked(masked: str, plain: str) -> list[Span]:
    """Character spans of the phrases between <MASK> tags in the text without them, in order; none where they differ."""
    spans: list[Span] = []
    at = 0
    for phrase in MARKED.findall(masked):
        start = plain.find(phrase, at)
        if start < 0:
            return []
        at = start + len(phrase)
        spans.append([start, at])
    return spans


def _preference(raw: Cells, prompt: Any, chosen: Any, rejected: Any) -> Preference:
    asked = messages_of(prompt, "prompt")
    spans = raw.get("chosen_spans"), raw.get("rejected_spans")
    pictures = next((raw[name] for name in ("images", "image", "video", "media_path") if raw.get(name)), None)
    return Preference(
        id=str(raw.get("example_id", raw.get("id", raw.get("sample_id", "")))),
        prompt=PLACEHOLDER.sub("", "\n".join(message.text for _, message in asked)).strip(),
        chosen=_side(chosen, "chosen"),
        rejected=_side(rejected, "rejected"),
        images=tuple(map(_image, pictures if isinstance(pictures, list) else [pictures] if pictures else [])),
        folder=Path(),
        patient=str(raw.get("patient_id") or ""),
        spans=(spans[0], spans[1]) if spans[0] is not None and spans[1] is not None else None,
        asked=asked,
        raw=raw,
    )


def _side(value: Any, name: str) -> str:
    """One side: a text, or a list of the only message that answers."""
    if not isinstance(value, str | list):
        raise RowError(name, f"bad_{name}", "expected a text or a list of messages")
    if isinstance(value, list) and len(value) != 1:
        raise RowError(name, "several_turns", "one answer a side; split the conversation")
    return answer_of(value if isinstance(value, str) else value[0], name).strip()


def _image(value: Any) -> str:
    """A path; an embedded image goes by its bytes."""
    if isinstance(value, Mapping):
        data = value.get("bytes")
        return value.get("path") or (f"sha256:{hashlib.sha256(data).hexdigest()}" if data else "")
    return str(value)


def _trl_row(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": pair.prompt.replace(PLACE, "")}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "images": [{"bytes": None, "path": path} for path in images],
    }


def _with_images(pair: Pair, images: Sequence[str]) -> str:
    """The prompt with a mark for each image, in front or where the prompt has its places."""
    placed = pair.prompt.count(PLACE) == len(images)
    return pair.prompt.replace(PLACE, IMAGE) if placed else IMAGE * len(images) + pair.prompt.replace(PLACE, "")


def _llama_factory_row(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    return {
        "conversations": [{"from": "human", "value": _with_images(pair, images)}],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "images": list(images),
    }


def _ms_swift_row(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": _with_images(pair, images)},
            {"role": "assistant", "content": pair.chosen},
        ],
        "rejected_response": pair.rejected,
        "images": list(images),
    }


FORMATS: dict[str, Format] = {
    "clinalign": Format(frozenset({"chosen", "rejected", "chosen_token_ids", "was_correct", "edit_kind"}), _ours),
    "MMedPO": Format(frozenset({"conversations", "rejected_conversations"}), read_mmedpo),
    "LLaMA-Factory": Format(frozenset({"conversations", "chosen", "rejected"}), _llama_factory, _llama_factory_row),
    "ms-swift": Format(frozenset({"messages", "rejected_response"}), _ms_swift, _ms_swift_row),
    "RRPO": Format(frozenset({"question", "answer", "pred"}), read_rrpo),
    "TRL": Format(frozenset({"chosen", "rejected"}), read_trl, _trl_row),
}
"""Format by name; of several that fit a row, the first."""
