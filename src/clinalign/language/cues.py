"""Cues of negation and uncertainty, and how far they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clinalign.language.graph import rows
from clinalign.language.lexicon import END, Node, spelled


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue by its kind and word range; `label`: the first word of the label that it answers, "Pneumothorax: none".

    "negation", "hedge", "history" and "open" (a hedge that no negation overrides) reach forward,
    "_after" back, "_both" both ways, "neutral" nowhere;
    "negation_seen" is "negation_after" unless it speaks of an earlier image.
    """

    kind: str
    first: int
    last: int
    label: int | None = None


def _trie(label: bool) -> Node:
    root: Node = {}
    for kind, phrase, *_ in rows("cues.tsv"):
        if kind.startswith("label ") is label:
            node = root
            for word in phrase.split():
                node = node.setdefault(spelled(word), {})  # type: ignore[assignment]
            node.setdefault(END, kind.removeprefix("label "))
    return root


CUES = _trie(label=False)
"""Word -> ... -> "" -> kind of cue."""

LABEL_VALUES = _trie(label=True)
"""What may stand behind a label and its colon, as the kind of cue that it is."""

TRAILING = frozenset(
    "likely possible probable suspected questionable exclude unlikely suspect out equivocal differential".split()
)
"""Hedges that at the end of a clause speak of what stands before them: "an infarct is likely"."""

PAST = frozenset("previously before prior earlier previous formerly preceding".split())
"""Words that put what was seen, or not, at an earlier time."""

FIRM = frozenset(("history", "history_after", "open", "open_after", "negation_now_after"))
"""Kinds of cue that a negation in the same clause does not override."""

STATED = frozenset(
    "stable unchanged new increased decreased persistent known old chronic worsening improving residual again interval "
    "trace tiny small healed resolving remaining".split()
)
"""Words that begin an item of which something is said, so that it is no part of a denied list before it."""

ENDS_SCOPE = frozenset(
    "but however although though except besides apart aside yet while whereas which ; : because due secondary albeit "
    "explain explains explaining otherwise since nevertheless instead despite".split()
)
"""Words that end a cue's scope."""

ENDS_FORWARD = ENDS_SCOPE | frozenset("now today after following status post until likely probably possibly".split())
"""Words that end the scope of a cue before them: "history of pneumonia, now with effusions"."""

VERBS = frozenset(
    "is are was were remains remain appears appear shows show demonstrates demonstrate reveals reveal has have had "
    "can cannot could contains contain persists exists lies measures seems looks suggests represents does do persist "
    "exist remained appeared projects overlies terminates ends extends increased decreased".split()
)
"""Finite verbs that make a segment a clause of its own."""

ARTICLES = frozenset(("a", "an", "the", "this", "some"))


Words = Sequence[str]


_PRONOUNS = frozenset("it this they these that which has have is are now since".split())


class Placed(Protocol):
    """A mention, as far as scopes need it."""

    @property
    def kind(self) -> str: ...
    @property
    def first(self) -> int: ...


def scope(cue: Cue, words: Words, sentence: tuple[int, int], mentions: Sequence[Placed]) -> tuple[int, int]:
    """The word range that a cue governs."""
    first, last = sentence
    if cue.label is not None:
        return _label_start(words, cue.label, first), cue.first
    begin, end = cue.last, cue.last
    if not cue.kind.endswith("_after"):
        own = {m.first for m in mentions if m.kind in ("side", "size", "severity", "measurement")}
        verb = any(words[k] in VERBS for k in range(clause_start(words, cue.first, first), cue.first))
        while end < last and not _ends(words, end, last, verb, end == cue.last, own):
            verb = verb or words[end] in VERBS
            end += 1
    if cue.kind.endswith(("_after", "_both")):
        begin = clause_start(words, cue.first, first)
        if begin > first and all(word in _PRONOUNS for word in words[begin : cue.first]):
            while begin > first and (words[begin - 1] in ENDS_SCOPE or words[begin - 1] in (",", "and")):
                begin -= 1
            begin = clause_start(words, begin, first)  # "an effusion, but it has resolved"
        if cue.kind.endswith("_after"):
            end = cue.first
    return begin, end


def _label_start(words: Words, label: int, first: int) -> int:
    """Where the label before a value begins: "effusion, pneumothorax: none" denies both."""
    start = label
    while start > first and words[start - 1] not in (":", ";", "|", "(", "-", "?"):
        start -= 1
    return start


def _ends(words: Words, i: int, last: int, verb_before: bool, opening: bool, own: set[int]) -> bool:
    """Whether the scope of a cue that reaches forward ends before word i; `opening`: the word right after the cue.

    An item with its own side or size is no part of a denied list, unless "or" goes on with the list behind it.
    """
    word = words[i]
    if word in ENDS_FORWARD:
        return not (opening and (word == ":" or word not in ENDS_SCOPE))
    following = words[i + 1] if i + 1 < last else ""
    if word == "there" and following in ("is", "are", "was", "were") and not opening:
        return words[i - 1] not in ("that", "if", "whether")
    if opening or word not in (",", "and", "or", "with", "/"):
        return False
    if following in ("and", "or"):
        return False if i + 2 >= last else _ends(words, i + 1, last, verb_before, False, own)
    if following in ARTICLES or following in ("there", "no", "has", "is", "are", "but", "without", "possible"):
        return word != "or" or following == "there"
    if word == "with":
        return False
    if word != "or" and (i + 1 in own or following in STATED or following.isdigit()):
        return not _goes_on(words, i + 1, last)
    return verb_before and _has_verb(words, i + 1, last)


def _goes_on(words: Words, i: int, last: int) -> bool:
    """Whether a list goes on with "or" behind word i, in the same clause."""
    while i < last and words[i] not in ENDS_FORWARD and words[i] != "there":
        if words[i] in ("or", "nor"):
            return True
        i += 1
    return False


def _has_verb(words: Words, i: int, last: int) -> bool:
    """Whether the segment up to the next comma or conjunction has a finite verb of its own."""
    while i < last and words[i] not in (",", "and", "or", ";"):
        if words[i] in VERBS:
            return True
        i += 1
    return False


def clause_start(words: Words, i: int, first: int) -> int:
    """Where the clause that ends before word i begins: after "but", ";" or a complete clause."""
    k = i - 1
    while k >= first:
        word = words[k]
        if word in ENDS_SCOPE:
            return k + 1
        if word in (",", "and", "or") and any(words[j] in VERBS for j in range(_segment_start(words, k, first), k)):
            return k + 1
        k -= 1
    return first


def _segment_start(words: Words, k: int, first: int) -> int:
    j = k
    while j > first and words[j - 1] not in (";", ":"):
        j -= 1
    return j
