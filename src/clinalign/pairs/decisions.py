"""A reader's decisions on pairs, made on the page and downloaded as JSONL, applied to the pairs of a run.

A row: `pair` (id), `round`, `decision` accept|reject|correct, `chosen` and `rejected` as they stood on the page, `text`
(the corrected text of the edited side), `reason`, `time`. A run folder keeps what was applied in `decisions.jsonl`; a
later file is added to it, and the last word on the same pair with the same texts counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clinalign.errors import RowError, UsageError, nearest
from clinalign.language.align import Edit
from clinalign.pairs import filters
from clinalign.pairs.build import STAGE, make_pair
from clinalign.pairs.options import PairOptions
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine, write_text

NAME = "decisions.jsonl"
KINDS = ("accept", "reject", "correct")
EDITOR = "reader"
"""`Pair.editor` of a corrected pair."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of a decisions file; `chosen` and `rejected` say which state of the pair it is about. `origin`: file and
    row that it was read from, for messages."""

    pair: str
    decision: str
    chosen: str
    rejected: str
    round: int = 0
    text: str = ""
    reason: str = ""
    time: str = ""
    origin: str = ""


def read_decisions(path: Path) -> list[Decision]:
    """The rows of a decisions file. `UsageError` names the file, row and field of the first that is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the decisions.jsonl that a page downloaded") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8; give the decisions.jsonl that a page downloaded") from error
    return [_decision(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


@contextmanager
def adopted(given: str, folder: Path, rounds: int = 1) -> Iterator[list[Decision]]:
    """While open, `folder/decisions.jsonl` holds the decisions of the file `given` beside earlier ones ("": no change);
    gives all of them. Left through a `UsageError`, the folder's file is what it was: what does not fit is not kept.
    """
    kept = folder / NAME
    earlier = read_decisions(kept) if kept.is_file() else []
    if not given or (kept.is_file() and Path(given).is_file() and kept.samefile(given)):
        yield earlier
        return
    before = kept.read_text(encoding="utf-8") if kept.is_file() else None
    rows = merge(earlier, read_decisions(Path(given)))
    late = next((row for row in rows if row.round >= rounds), None)
    if late is not None:
        raise UsageError(f"{late.origin}: round: {late.round}, but the run has {rounds}; use the page of this run")
    write_text(kept, "".join(json.dumps(_written(row), ensure_ascii=False) + "\n" for row in rows))
    try:
        yield rows
    except UsageError:
        kept.unlink() if before is None else write_text(kept, before)
        raise


def merge(earlier: Sequence[Decision], later: Sequence[Decision]) -> list[Decision]:
    """Both in order; a later decision on the same texts of the same pair takes the place of the earlier one."""
    rows: dict[tuple[str, ...], Decision] = {}
    for row in [*earlier, *later]:
        rows[row.pair, str(row.round), row.chosen, row.rejected] = row
    return list(rows.values())


def apply_decisions(
    pairs: Sequence[Pair],
    decisions: Sequence[Decision],
    examples: Sequence[Example],
    answers: Sequence[Answer],
    tokenizer: Any,
    options: PairOptions,
    quarantine: Quarantine,
) -> list[Pair]:
    """The pairs after the decisions on the rounds of `answers`, in their order.

    A rejected pair is quarantined with the reader's reason. A corrected text is aligned with the sampled answer anew
    and has to pass the filters, the reader's word counting where the rules cannot judge; one that fails is quarantined.
    A decision on an unknown pair, or on texts that the pair does not have, is a `UsageError`.
    """
    by_id = {example.id: example for example in examples}
    said = {(answer.example_id, answer.round): answer for answer in answers}
    rounds = {answer.round for answer in answers}
    now: dict[str, Pair | None] = {pair.id: pair for pair in pairs}
    for number, row in enumerate(decisions, 1):
        if row.round not in rounds:
            continue
        pair = _current(now, row, row.origin or f"{NAME}:{number}")
        if row.decision == "accept":
            continue
        now[pair.id] = None
        try:
            if row.decision == "reject":
                raise RowError("decision", "rejected_by_reader", row.reason or "no reason given")
            now[pair.id] = _corrected(
                pair, row.text, by_id[pair.example_id], said[pair.example_id, pair.round], tokenizer, options
            )
        except RowError as error:
            where: dict[str, Any] = {"file": NAME, "row": number, "id": pair.example_id}
            quarantine.add(STAGE, reason=error.reason, field=error.field, detail=error.detail, **where)
    return [pair for pair in now.values() if pair is not None]


def _current(now: Mapping[str, Pair | None], row: Decision, where: str) -> Pair:
    pair = now.get(row.pair)
    if row.pair in now and pair is None:
        raise UsageError(f"{where}: pair '{row.pair}' was left out by an earlier row; take one of the two rows out")
    if pair is None:
        hint = nearest(row.pair, now)
        raise UsageError(f"{where}: no pair '{row.pair}' in this run{hint}; use the page of this run")
    for field in ("chosen", "rejected"):
        if getattr(pair, field) != getattr(row, field):
            raise UsageError(
                f"{where}: {field}: pair '{row.pair}' reads otherwise now; decide on it anew on this run's page, or "
                "take the row out"
            )
    return pair


def _corrected(pair: Pair, text: str, example: Example, answer: Answer, tokenizer: Any, options: PairOptions) -> Pair:
    made = Edit(text, [], [], pair.was_correct, pair.edit_kind)
    filters.after_editing(example, answer.text, made, options, filters.Second(not pair.was_correct, False))
    return replace(make_pair(example, answer, made, tokenizer, options), id=pair.id, editor=EDITOR)


def _decision(line: str, where: str) -> Decision:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not valid JSON ({error}); download the decisions again") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a JSON object a line; download the decisions again")
    for field in ("pair", "decision", "chosen", "rejected"):
        if not isinstance(row.get(field), str):
            raise UsageError(f"{where}: field '{field}' is missing or no text; download the decisions again")
    if row["decision"] not in KINDS:
        raise UsageError(f"{where}: decision '{row['decision']}'; expected one of {', '.join(KINDS)}")
    text, round_ = row.get("text") or "", row.get("round") or 0
    if not isinstance(text, str) or (row["decision"] == "correct" and not text.strip()):
        raise UsageError(f"{where}: text: a correction needs the corrected text")
    if type(round_) is not int or round_ < 0:
        raise UsageError(f"{where}: round: expected a whole number, got {round_!r}")
    rest = {field: str(row.get(field) or "") for field in ("reason", "time")}
    named = {field: row[field] for field in ("pair", "decision", "chosen", "rejected")}
    return Decision(**named, round=round_, text=text.strip(), origin=where, **rest)


def _written(row: Decision) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "origin"}
