"""Token ids of an edited answer: the sampled ids everywhere but in the edit, and the differing character ranges.

Encoding the whole edited text would give ids that the model never sampled, even far from the edit. Here only the
replacement is encoded, widened to the borders of the sampled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import Spans, blocks
from clinalign.language.offsets import Offsets, decode, token_offsets
from clinalign.records import Span

_ANCHORS = ("", "\n", "(", ".", "a", " a")


@dataclass(frozen=True, slots=True)
class Edited:
    """ids: of the edited answer, everything outside the text (EOS) kept; spans: into the chosen and the rejected text.

    Tokens that overlap no span are the same ids, in the same order, on both sides.
    """

    ids: list[int]
    chosen_spans: list[Span]
    rejected_spans: list[Span]


@dataclass(slots=True)
class _Region:
    """A replaced run of sampled tokens [first, last), its new ids and the characters that differ on both sides."""

    first: int
    last: int
    start: int
    end: int
    new_start: int
    new_end: int
    ids: Sequence[int] = ()


def edited_ids(tokenizer: Any, ids: Sequence[int], own: str, new: str, *, own_chosen: bool = True) -> Edited:
    """The ids of `new`, an edit of the sampled answer `own` with token ids `ids`; `own_chosen` says which side is own.

    `own` is the decoded text, white space at the ends aside. Raises RowError("token_ids", "text_mismatch") where the
    ids do not spell `own`, and RowError("token_ids", "token_mismatch") where no ids spell the edited text.
    """
    text = decode(tokenizer, ids)
    lead = 0 if text == own else len(text) - len(text.lstrip())
    if not text.startswith(own, lead) or text[lead + len(own) :].strip():
        raise RowError("token_ids", "text_mismatch", "the token ids do not spell the answer's text")
    whole = text[:lead] + new + text[lead + len(own) :]
    ranges = token_offsets(tokenizer, ids, text)
    for widen in (0, 1, 2, 4, 8, len(ids)):
        regions = _regions(blocks(text, whole), ranges, widen)
        made = _assemble(tokenizer, ids, regions, text, whole, ranges)
        if made is not None:
            new_ranges = token_offsets(tokenizer, made, whole)
            sides = _spans(ids, regions, ranges, new_ranges, lead, (len(own), len(new)))
            own_spans, new_spans = ([list(span) for span in spans] for spans in sides)
            return Edited(made, *((own_spans, new_spans) if own_chosen else (new_spans, own_spans)))
    raise RowError("token_ids", "token_mismatch", "the tokenizer cannot spell the edited text")


def _regions(found: Sequence[tuple[int, int, int, int]], ranges: Offsets, widen: int) -> list[_Region]:
    out: list[_Region] = []
    for start, end, new_start, new_end in found:
        first, last = _tokens(ranges, start, end)
        first, last = max(0, first - widen), min(_texts(ranges), last + widen)
        if out and first < out[-1].last:
            out[-1].last, out[-1].end, out[-1].new_end = max(last, out[-1].last), end, new_end
        else:
            out.append(_Region(first, last, start, end, new_start, new_end))
    return out


def _texts(ranges: Offsets) -> int:
    """How many ids there are up to the last that adds text: what follows (EOS) is never touched."""
    n = len(ranges)
    while n and ranges[n - 1][0] == ranges[n - 1][1]:
        n -= 1
    return n


def _tokens(ranges: Offsets, start: int, end: int) -> tuple[int, int]:
    """The run of tokens that a character range touches; an insertion on a border touches none."""
    count = _texts(ranges)
    first = next((i for i in range(count) if ranges[i][1] > start), count)
    if start == end:
        return (first, first) if first == count or ranges[first][0] >= start else (first, _after(ranges, first, count))
    last = first
    while last < count and ranges[last][0] < end:
        last += 1
    return first, last


def _after(ranges: Offsets, first: int, count: int) -> int:
    """The token after all those that share the characters of `first` (bytes of one character)."""
    last = first + 1
    while last < count and ranges[last][0] < ranges[first][1]:
        last += 1
    return last


def _assemble(
    tokenizer: Any, ids: Sequence[int], regions: list[_Region], text: str, whole: str, ranges: Offsets
) -> list[int] | None:
    """The new ids, or None where they do not decode to the edited text."""
    out: list[int] = []
    at = 0
    for region in regions:
        before, after = _characters(region, ranges)
        piece = whole[region.new_start - before : region.new_end + after]
        out += ids[at : region.first]
        upto = region.new_end + after
        found = _encode(tokenizer, out, piece, whole[:upto])
        if found is None:
            return None
        region.ids = found
        out += found
        at = region.last
    out += ids[at:]
    return out if decode(tokenizer, out) == whole else None


def _characters(region: _Region, ranges: Offsets) -> tuple[int, int]:
    """How many unchanged characters the region's tokens hold before and after the differing ones."""
    if region.first == region.last:
        return 0, 0
    begin = min(ranges[region.first][0], region.start)
    finish = max(ranges[region.last - 1][1], region.end)
    return region.start - begin, finish - region.end


def _encode(tokenizer: Any, before: Sequence[int], piece: str, expected: str) -> list[int] | None:
    """Ids of a piece in its place: tried plain first, then behind an anchor, so that no space is put in front."""
    if not piece:
        return []
    for anchor in _ANCHORS:
        found = list(_ids(tokenizer, anchor + piece))
        if anchor:
            prefix = list(_ids(tokenizer, anchor))
            if found[: len(prefix)] != prefix:
                continue
            found = found[len(prefix) :]
        if decode(tokenizer, [*before, *found]) == expected:
            return found
    return None


@lru_cache(maxsize=4096)
def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The ids of a piece; the same few words are put in again and again."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _spans(
    ids: Sequence[int],
    regions: list[_Region],
    ranges: Offsets,
    new_ranges: Offsets,
    lead: int,
    lengths: tuple[int, int],
) -> tuple[Spans, Spans]:
    """The character spans, such that the ids outside them are the same on both sides."""
    own_spans: Spans = []
    new_spans: Spans = []
    shift = 0
    for region in regions:
        old, new = list(ids[region.first : region.last]), list(region.ids)
        a = ranges[region.first : region.last]
        b = new_ranges[region.first + shift : region.first + shift + len(new)]
        own, changed = (region.start, region.end), (region.new_start, region.new_end)
        if _outside(old, a, own) != _outside(new, b, changed):
            own, changed = _whole_tokens(old, new, a, b, own, changed)
        _add(own_spans, own, lead, lengths[0])
        _add(new_spans, changed, lead, lengths[1])
        shift += len(new) - len(old)
    return own_spans, new_spans


def _outside(ids: list[int], ranges: Offsets, span: tuple[int, int]) -> list[int]:
    """The ids that do not overlap a character range."""
    start, end = span
    return [i for i, r in zip(ids, ranges, strict=True) if not (start < end and r[0] < end and start < r[1])]


def _whole_tokens(
    old: list[int], new: list[int], a: Offsets, b: Offsets, own: tuple[int, int], changed: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The characters of the tokens that differ, where a changed token reaches beyond the differing words."""
    head, tail = _common(old, new)
    for front, back in ((head, tail), (0, 0)):
        first, second = a[front : len(a) - back], b[front : len(b) - back]
        own = (first[0][0], first[-1][1]) if first else (own[0], own[0])
        changed = (second[0][0], second[-1][1]) if second else (changed[0], changed[0])
        if _outside(old, a, own) == _outside(new, b, changed):
            break
    return own, changed


def _common(old: list[int], new: list[int]) -> tuple[int, int]:
    """How many ids the two runs share at the front and, beyond that, at the back."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return head, tail


def _add(spans: Spans, span: tuple[int, int], lead: int, length: int) -> None:
    start, end = max(0, span[0] - lead), min(length, span[1] - lead)
    if start >= end:
        return
    if spans and start < spans[-1][1]:
        spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
    else:
        spans.append((start, end))
