"""Text into words, sentences and mentions, each mention present, absent or uncertain.

Negation and uncertainty follow the idea of NegEx (Chapman et al. 2001): a cue reaches forward or backward through its
clause until a word that ends its scope. "No change in" and its like are no negation; "cannot exclude" is uncertainty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from clinalign.language.cues import ARTICLES, CUES, ENDS_FORWARD, ENDS_SCOPE, TRAILING, VERBS, Cue
from clinalign.language.lexicon import END, TRIE, Node, singular

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"

_WORD = re.compile(r"\d+\.\d+|[^\W_]+(?:['\u2019]t\b)?|\n|[^\w\s]|_")
_STOPS = {".", "!", "?", "\n"}
_ABBREVIATIONS = {"dr", "mr", "mrs", "vs", "e.g", "i.e", "approx", "fig", "no"}
_AFTER_ANSWER_NO = {",", ".", ";", ":", "!", "-", "\u2014", "there", "it", "this", "the", "i", "they"}


@dataclass(frozen=True, slots=True)
class Mention:
    """One lexicon entry in a text: its kind ("finding", "side", ...), value, character range and assertion status.

    `first` and `last` are word indices (last exclusive); `cue` is the character range of the negating or hedging words.
    """

    kind: str
    value: str
    start: int
    end: int
    first: int
    last: int
    status: str = PRESENT
    cue: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Parse:
    """A text with its words (lower case), their character ranges, sentences (word ranges) and mentions."""

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    sentences: tuple[tuple[int, int], ...]
    mentions: tuple[Mention, ...]
    cues: tuple[Cue, ...]

    def sentence(self, word: int) -> tuple[int, int]:
        """The word range of the sentence that holds a word."""
        for first, last in self.sentences:
            if first <= word < last:
                return first, last
        return len(self.words), len(self.words)

    def of(self, kind: str) -> list[Mention]:
        """The mentions of one kind; a severity may be said as a size ("moderate") and a count as a numeral."""
        also = {"severity": ("size", "moderate"), "count": ("number", None)}.get(kind)
        return [
            m
            for m in self.mentions
            if m.kind == kind or (also is not None and m.kind == also[0] and also[1] in (None, m.value))
        ]


@lru_cache(maxsize=16384)
def parse(text: str) -> Parse:
    """Parses a text; cached, because a question and its truth are read many times."""
    words, spans = [], []
    for match in _WORD.finditer(text):
        words.append(match.group().lower().replace("\u2019", "'"))
        spans.append(match.span())
    sentences = _sentences(words)
    cues = _find_cues(words)
    mentions: list[Mention] = []
    for first, last in sentences:
        found = _mentions(words, spans, first, last)
        mine = [c for c in cues if first <= c.first < last]
        mentions += _assert(found, mine, words, spans, (first, last)) if mine else found
    return Parse(text, tuple(words), tuple(spans), tuple(sentences), tuple(mentions), tuple(cues))


def _sentences(words: list[str]) -> list[tuple[int, int]]:
    out, first = [], 0
    for i, word in enumerate(words):
        if word in _STOPS and not (word == "." and i > first and words[i - 1] in _ABBREVIATIONS - {"no"}):
            if i > first:
                out.append((first, i))
            first = i + 1
    if first < len(words):
        out.append((first, len(words)))
    return out


def _walk(trie: Node, words: list[str], i: int, last: int) -> tuple[object, int] | None:
    """The longest entry that starts at word i, and the word after it."""
    best: tuple[object, int] | None = None
    node: Node = trie
    while i < last:
        word = words[i]
        if word == "-" and node is not trie:
            i += 1
            continue
        step = node.get(word)
        if step is None and word[-1] == "s":
            step = node.get(singular(word))
        if step is None:
            break
        node = step  # type: ignore[assignment]
        i += 1
        if END in node:
            best = node[END], i
    return best


def _mentions(words: list[str], spans: list[tuple[int, int]], first: int, last: int) -> list[Mention]:
    out: list[Mention] = []
    i = first
    while i < last:
        word = words[i]
        if word in ("yes", "yeah", "yep") or (word in ("no", "nope", "nay") and _answers(words, i, first, last)):
            value = "yes" if word[0] == "y" else "no"
            out.append(Mention("yesno", value, *spans[i], i, i + 1))
            i += 1
            continue
        found = _walk(TRIE, words, i, last)
        if found is not None:
            entry, after = found
            out.append(Mention(*cast(tuple[str, str], entry), spans[i][0], spans[after - 1][1], i, after))
            i = after
            continue
        if word[0].isdigit():
            out.append(Mention("number", word, *spans[i], i, i + 1))
        i += 1
    return out


def _answers(words: list[str], i: int, first: int, last: int) -> bool:
    """Whether a "no" is the answer word rather than a determiner."""
    if i + 1 >= last:
        return True
    follow = words[i + 1]
    return follow in _AFTER_ANSWER_NO and (i == first or words[i - 1] in ("is", ",", ":", "-"))


def _find_cues(words: list[str]) -> list[Cue]:
    out, i, last = [], 0, len(words)
    while i < last:
        found = _walk(CUES, words, i, last)
        if found is None:
            i += 1
            continue
        kind, after = found
        if not (words[i] in ("no", "nope") and after == i + 1 and _answers(words, i, _start(words, i), last)):
            ends = after >= last or not words[after][0].isalnum()
            trailing = kind == "hedge" and ends and words[after - 1] in TRAILING and i > 0
            leading = kind == "negation_after" and not ends and i == _start(words, i)  # "Resolved pneumothorax."
            out.append(Cue("hedge_after" if trailing else "negation" if leading else str(kind), i, after))
        i = after
    return out


def _start(words: list[str], i: int) -> int:
    while i > 0 and words[i - 1] not in _STOPS:
        i -= 1
    return i


def _assert(
    mentions: list[Mention],
    cues: list[Cue],
    words: list[str],
    spans: list[tuple[int, int]],
    sentence: tuple[int, int],
) -> list[Mention]:
    """The mentions with the status that the sentence's cues give them; a negation outweighs a hedge."""
    scopes = [(cue, *_scope(cue, words, sentence)) for cue in cues if cue.kind != "neutral"]
    out = []
    for m in mentions:
        status, at = PRESENT, None
        for cue, first, last in scopes:
            if first <= m.first and m.last <= last and not (cue.first < m.last and m.first < cue.last):
                if m.kind == "normal" and cue.last != m.first:
                    continue  # "without effusion, heart within normal limits"
                said = UNCERTAIN if cue.kind.startswith("hedge") else ABSENT
                if status == PRESENT or (status == UNCERTAIN and said == ABSENT):
                    status, at = said, (spans[cue.first][0], spans[cue.last - 1][1])
        if at is not None:
            m = Mention(m.kind, m.value, m.start, m.end, m.first, m.last, status, at)
        out.append(m)
    return out


def _scope(cue: Cue, words: list[str], sentence: tuple[int, int]) -> tuple[int, int]:
    """The word range that a cue governs."""
    first, last = sentence
    begin, end = cue.last, cue.last
    if cue.kind in ("negation", "hedge", "negation_both", "hedge_both"):
        verb = any(words[k] in VERBS for k in range(_clause_start(words, cue.first, first), cue.first))
        while end < last and not _ends(words, end, last, verb, end == cue.last):
            verb = verb or words[end] in VERBS
            end += 1
    if cue.kind in ("negation_after", "hedge_after", "negation_both", "hedge_both"):
        begin = _clause_start(words, cue.first, first)
        if cue.kind.endswith("after"):
            end = cue.first
    return begin, end


def _ends(words: list[str], i: int, last: int, verb_before: bool, first: bool = False) -> bool:
    """Whether the scope of a cue that reaches forward ends before word i; `first`: the word right after the cue."""
    word = words[i]
    if word in ENDS_FORWARD:
        return True
    following = words[i + 1] if i + 1 < last else ""
    if word == "there" and following in ("is", "are", "was", "were") and not first:
        return True
    if word not in (",", "and", "or", "with"):
        return False
    if following == "and" or following == "or":
        return False if i + 2 >= last else _ends(words, i + 1, last, verb_before)
    if following in ARTICLES or following in ("there", "no", "has", "is", "are", "but"):
        return word != "or" or following in ("there",)
    if word == "with":
        return False
    return verb_before and _has_verb(words, i + 1, last)


def _has_verb(words: list[str], i: int, last: int) -> bool:
    """Whether the segment up to the next comma or conjunction has a finite verb of its own."""
    while i < last and words[i] not in (",", "and", "or", ";"):
        if words[i] in VERBS:
            return True
        i += 1
    return False


def _clause_start(words: list[str], i: int, first: int) -> int:
    """Where the clause that ends before word i begins: after "but", ";" or a complete clause."""
    k = i - 1
    verb_seen = False
    while k >= first:
        word = words[k]
        if word in ENDS_SCOPE:
            return k + 1
        if word in (",", "and", "or") and any(words[j] in VERBS for j in range(_segment_start(words, k, first), k)):
            return k + 1
        verb_seen = verb_seen or word in VERBS
        k -= 1
    return first


def _segment_start(words: list[str], k: int, first: int) -> int:
    j = k
    while j > first and words[j - 1] not in (";", ":"):
        j -= 1
    return j
