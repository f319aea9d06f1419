"""Where each token of a sampled answer lies in its text, from the ids themselves.

Encoding the text again need not give the sampled ids (a model may spell a word in pieces), so offsets are read off the
decoder: each id's own contribution to the decoded text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary

from clinalign.language.align import deletions

Offsets = list[tuple[int, int]]
Said = tuple[str, Sequence[Sequence[int]], Sequence[int]]
"""An answer: its text, its differing ranges, its token ids."""

_KINDS: WeakKeyDictionary[Any, tuple[str, frozenset[int]]] = WeakKeyDictionary()


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of the ids exactly: special tokens left out, no clean-up of spaces."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def spelled(tokenizer: Any, text: str) -> tuple[str, list[int]]:
    """A text's ids, and the text without special tokens where it holds some (a family's marks around a box): an answer
    has them among its ids, and no character of them in its text."""
    ids = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    return (decode(tokenizer, ids).strip() if _kind(tokenizer)[1].intersection(ids) else text), ids


def token_offsets(tokenizer: Any, ids: Sequence[int], text: str | None = None) -> Offsets:
    """Half-open character ranges of each id in `decode(tokenizer, ids)`, which is `text` where the caller has it.

    Special tokens and ids that add nothing get an empty range. Ids that together make one character (byte fallback,
    split UTF-8) all get the range of that character; a first space that the decoder drops gets the next token's.
    """
    kind, special = _kind(tokenizer)
    text = decode(tokenizer, ids) if text is None else text
    if kind != "other":
        pieces = [b"" if i in special else _piece(kind, t) for i, t in zip(ids, _tokens(tokenizer, ids), strict=True)]
        fast = _from_bytes(pieces, text)
        if fast is not None:
            return _dropped_space(pieces, fast)
    return _from_prefixes(tokenizer, ids, text)


def offsets_in(tokenizer: Any, ids: Sequence[int], text: str) -> Offsets:
    """`token_offsets` in the characters of `text`, which is what the ids decode to, white space around it aside.

    Raises `ValueError` where the ids spell something else.
    """
    decoded = decode(tokenizer, ids)
    if text != decoded and text.strip() != decoded.strip():
        raise ValueError(f"the token ids spell {decoded[:60]!r}, the text is {text[:60]!r}")
    shift = (len(decoded) - len(decoded.lstrip())) - (len(text) - len(text.lstrip())) if text != decoded else 0
    return [(a - shift, b - shift) for a, b in token_offsets(tokenizer, ids)]


def partings(tokenizer: Any, own: Said, other: Said) -> list[int]:
    """The tokens of an answer at which another one parts from it with words that it lacks: of "There is effusion", to
    "There is no effusion", the token of "effusion". One for each such place; the differing ranges go with the texts.

    Raises `ValueError` where the ids do not spell the text.
    """
    (text, spans, ids), (other_text, others, other_ids) = own, other
    mine, theirs = offsets_in(tokenizer, ids, text), offsets_in(tokenizer, other_ids, other_text)
    found = []
    for here, there in deletions(text, spans, other_text, others):
        i, j = following(mine, here), following(theirs, there)
        while i < len(ids) - 1 and j < len(other_ids) - 1 and ids[i] == other_ids[j]:
            i, j = i + 1, j + 1
        found.append(i)
    return found


def following(offsets: Offsets, place: int) -> int:
    """The token behind a place between two characters; the last one behind the text."""
    return next((i for i, (_, end) in enumerate(offsets) if end > place), len(offsets) - 1)


def answer_end(tokenizer: Any, template: str | None = None) -> int:
    """The id by which a model's own answers end: the special token that its chat template (`template`, otherwise the
    tokenizer's) puts behind an assistant's words, such as Gemma's <end_of_turn>; the tokenizer's EOS where there is
    none. A model may stop at several ids, and what it learnt to end a turn with need not be the EOS."""
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    said = "clinalign"
    for words in (said, [{"type": "text", "text": said}]):
        turns = [{"role": "user", "content": words}, {"role": "assistant", "content": words}]
        try:
            text = str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
        except Exception:  # noqa: BLE001  (no template, or one that takes the other form of content)
            continue
        behind = tokenizer(text.rpartition(said)[2].lstrip(), add_special_tokens=False)["input_ids"]
        if said in text and behind and behind[0] in special:
            return int(behind[0])
    return int(tokenizer.eos_token_id)


def _tokens(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The ids' tokens; an id that the tokenizer does not have (a padded vocabulary) spells nothing."""
    return [token or "" for token in tokenizer.convert_ids_to_tokens(list(ids))]


def _kind(tokenizer: Any) -> tuple[str, frozenset[int]]:
    """How ids become text ("bytes" for byte-level BPE, "space" for SentencePiece pieces) and the special ids."""
    found = _KINDS.get(tokenizer)
    if found is None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.dumps(json.loads(backend.to_str()).get("decoder")) if backend is not None else ""
        kind = (
            "bytes" if '"ByteLevel"' in decoder else "space" if "\u2581" in decoder or "\\u2581" in decoder else "other"
        )
        found = _KINDS[tokenizer] = (kind, frozenset(tokenizer.all_special_ids))
    return found


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """The printable stand-ins of byte-level BPE (GPT-2) back to bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(rest)}


@lru_cache(maxsize=65536)
def _piece(kind: str, token: str) -> bytes:
    if kind == "bytes":
        table = _byte_of()
        return bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def _from_bytes(pieces: list[bytes], text: str) -> Offsets | None:
    """Ranges from each piece's bytes, or None where the bytes are not the text (a decoder that does more)."""
    raw = b"".join(pieces)
    data = text.encode("utf-8", "surrogatepass")
    start = 0
    if raw != data:
        if raw[1:] != data or raw[:1] != b" ":
            return None
        start = -1  # a SentencePiece decoder drops the first space
    if len(data) == len(text):
        ends = list(accumulate(map(len, pieces), initial=start))
        ends = [0, *ends[1:]] if start == 0 else [max(end, 0) for end in ends]
        return list(pairwise(ends))
    return _unicode_ranges(pieces, data, start)


def _dropped_space(pieces: list[bytes], ranges: Offsets) -> Offsets:
    """A first token that is only the space which the decoder drops belongs to the word that follows."""
    n = next((i for i, piece in enumerate(pieces) if piece), len(pieces))
    if n + 1 < len(pieces) and ranges[n][0] == ranges[n][1] and pieces[n + 1]:
        return [*ranges[:n], ranges[n + 1], *ranges[n + 1 :]]
    return ranges


def _unicode_ranges(pieces: list[bytes], data: bytes, at: int) -> Offsets:
    first: list[int] = []  # character index of each byte
    count = -1
    for byte in data:
        count += byte & 0xC0 != 0x80
        first.append(count)
    first.append(count + 1)
    out: Offsets = []
    for piece in pieces:
        begin, at = max(at, 0), at + len(piece)
        end = max(at, 0)
        out.append((first[begin], first[end - 1] + 1) if end > begin else (first[begin], first[begin]))
    return out


def _from_prefixes(tokenizer: Any, ids: Sequence[int], text: str) -> Offsets:
    """Ranges from decoding every prefix: slow, right for any decoder."""
    ends: list[int] = []
    for n in range(1, len(ids) + 1):
        prefix = decode(tokenizer, ids[:n])
        common = len(prefix)
        while not text.startswith(prefix[:common]):
            common -= 1
        ends.append(max(common, ends[-1] if ends else 0))
    out: Offsets = []
    for n, end in enumerate(ends):
        begin = ends[n - 1] if n else 0
        out.append((begin, end))
    return _close_gaps(out, set(tokenizer.all_special_ids), ids)


def _close_gaps(ranges: Offsets, special: set[int], ids: Sequence[int]) -> Offsets:
    """Ids that end in the middle of a character take the whole character with the id that completes it."""
    out = list(ranges)
    for n in range(len(out) - 2, -1, -1):
        begin, end = out[n]
        if begin == end and ids[n] not in special and out[n + 1][0] == begin:
            out[n] = out[n + 1]
    return out
