"""Which characters each token stands for, exactly: for byte-level BPE and for SentencePiece with byte fallback."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from clinalign.errors import UsageError

SPACE = "\u2581"


def token_offsets(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open character ranges of the tokens in `tokenizer.decode(ids, skip_special_tokens=True)`.

    A token that holds a part of a character's bytes gets the whole character; special tokens get an empty range.
    Raises `UsageError` for a tokenizer whose tokens do not spell out its decoded text.
    """
    spell = _spelling(tokenizer)
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(ids))
    pieces = [b"" if i in special else spell(name) for i, name in zip(ids, names, strict=True)]
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    spelled = b"".join(pieces)
    decoded = spelled.decode("utf-8", errors="replace")
    cut = len(decoded) - len(decoded.lstrip(" ")) if decoded != text else 0
    lead = next((k for k in range(cut + 1) if decoded[k:] == text), None)
    if lead is None:
        raise UsageError(f"tokenizer {type(tokenizer).__name__}: its tokens do not spell out the text they decode to")
    character = _characters(spelled)
    ranges, at = [], 0
    for piece in pieces:
        start, end = at, at + len(piece)
        at = end
        first = character[start] if start < len(character) else len(decoded)
        last = character[end - 1] + 1 if end > start else first
        ranges.append((max(0, first - lead), max(0, last - lead)))
    return ranges


def span_tokens(
    tokenizer: Any, ids: Sequence[int], text: str, spans: Sequence[Sequence[int]], *, next_token: int | None = None
) -> list[bool]:
    """True for each token of `ids` that shares a character with a span of `text`; spans are half-open.

    `text` is the decoded text, or that text without surrounding white space. A span without characters [s, s) marks the
    edit's place only: with `next_token` (not None) the token that follows it is marked. Where there are no spans at all,
    `next_token` is the index of the token to mark (the first one after the edit), cut to the answer's length.
    Raises `ValueError` when `text` is not what `ids` spell or a span lies outside of it.
    """
    decoded = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if text != decoded and text != decoded.strip():
        raise ValueError(f"the token ids spell {decoded[:60]!r}, the text is {text[:60]!r}")
    shift = 0 if text == decoded else len(decoded) - len(decoded.lstrip())
    offsets = token_offsets(tokenizer, ids)
    marked = [False] * len(ids)
    for start, end in spans:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span [{start}, {end}) lies outside a text of {len(text)} characters")
        start, end = start + shift, end + shift
        if start < end:
            for i, (a, b) in enumerate(offsets):
                marked[i] |= a < end and start < b
        elif next_token is not None:
            marked[next((i for i, (_, b) in enumerate(offsets) if b > start), len(ids) - 1)] = True
    if not spans and next_token is not None and ids:
        marked[min(next_token, len(ids) - 1)] = True
    return marked


def _characters(spelled: bytes) -> list[int]:
    """Index of the character each byte belongs to, under the replacement rule of `bytes.decode`."""
    index: list[int] = []
    at, count = 0, 0
    while at < len(spelled):
        for size in (1, 2, 3, 4):
            try:
                whole = len(spelled[at : at + size].decode("utf-8"))
                break
            except UnicodeDecodeError as error:
                bad = error
        else:
            size, whole = max(1, bad.end - bad.start), 1
        index += [count] * min(size, len(spelled) - at)
        at, count = at + size, count + whole
    return index


def _spelling(tokenizer: Any) -> Callable[[str], bytes]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(f"tokenizer {type(tokenizer).__name__} has no fast form; spans need one")
    decoder = json.dumps(json.loads(backend.to_str()).get("decoder"))
    if "ByteLevel" in decoder:
        return _byte_level
    if SPACE in decoder or "Metaspace" in decoder or "\\u2581" in decoder:
        return _sentencepiece
    raise UsageError(f"tokenizer {type(tokenizer).__name__}: neither byte-level BPE nor SentencePiece; spans need one")


def _byte_level(name: str) -> bytes:
    table = _byte_of()
    return b"".join(bytes([table[c]]) if c in table else c.encode() for c in name)


def _sentencepiece(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace(SPACE, " ").encode()


@lru_cache
def _byte_of() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
