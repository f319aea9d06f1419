"""Text into words, sentences and mentions, each mention present, absent or uncertain.

Negation and uncertainty follow the idea of NegEx (Chapman et al. 2001): a cue reaches forward or backward through its
clause until a word that ends its scope. "No change in" and its like are no negation; "cannot exclude" is uncertainty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from clinalign.language.cues import CUES, FIRM, LABEL_VALUES, PAST, TRAILING, Cue, scope
from clinalign.language.lexicon import END, TRIE, Meanings, Node, meanings, singular
from clinalign.language.tokens import STOPS, Measure, Tokens, measures, tokenise

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"

_AFTER_ANSWER_NO = {",", ".", ";", ":", "!", "-", "\u2014", "there", "it", "this", "the", "i", "they"}
_SEPARATORS = {":", "-", "(", "?", "=", "|", "\u2013", "\u2014"}
_WITHIN = ("left", "right", "bilateral", "the")
"""What may stand within a phrase: "elevated left hemidiaphragm"."""
_PLACES = ("on", "in", "at", "given", "based", "with", "here", "as", "due", "but", "and", "or", "though", "although")
_OVER = frozenset("resolved cleared disappeared gone healed resorbed removed".split())
_LEVEL = re.compile(r"c[1-7]|t[3-9]|t1[0-2]|l[1-5]|s[1-5]")


@dataclass(frozen=True, slots=True)
class Mention:
    """One lexicon entry in a text: its kind ("finding", "side", ...), value, character range and assertion status.

    `first` and `last` are word indices (last exclusive); `cue` is the character range of the negating or hedging words
    and `cue_kind` says what kind they are.
    """

    kind: str
    value: str
    start: int
    end: int
    first: int
    last: int
    status: str = PRESENT
    cue: tuple[int, int] | None = None
    cue_kind: str = ""


@dataclass(frozen=True, slots=True)
class Parse:
    """A text with its words (lower case), their character ranges, sentences (word ranges), the sections that these
    stand in, mentions and cues."""

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    sentences: tuple[tuple[int, int], ...]
    sections: tuple[str, ...]
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
    tokens = tokenise(text)
    words = list(tokens.words)
    cues = _find_cues(words)
    mentions: list[Mention] = []
    at = 0
    for first, last in tokens.sentences:
        found = _mentions(tokens, first, last)
        mine = []
        while at < len(cues) and cues[at].first < last:
            mine += [cues[at]] if cues[at].first >= first else []
            at += 1
        mine = _labelled(words, found, mine, first, last)
        mentions += _assert(found, mine, words, tokens.spans, (first, last), found) if mine else found
    return Parse(text, tokens.words, tokens.spans, tokens.sentences, tokens.sections, tuple(mentions), tuple(cues))


def _walk(trie: Node, words: list[str] | tuple[str, ...], i: int, last: int) -> tuple[object, int] | None:
    """The longest entry that starts at word i, and the word after it; a finding may have a side within its words."""
    best: tuple[object, int] | None = None
    node: Node = trie
    split = False
    while i < last:
        word = words[i]
        if word in ("-", "/") and node is not trie:
            i += 1
            continue
        step = node.get(word)
        if step is None and word[-1] == "s":
            step = node.get(singular(word))
        if step is None and word in _WITHIN and node is not trie and trie is TRIE:
            split = True
            i += 1
            continue
        if step is None:
            break
        node = step  # type: ignore[assignment]
        i += 1
        if END in node and (not split or node[END][0][0] == "finding"):  # type: ignore[index]
            best = node[END], i
    return best


def _mentions(tokens: Tokens, first: int, last: int) -> list[Mention]:
    words, spans = tokens.words, tokens.spans
    out: list[Mention] = []
    measured = {m.first: m for m in measures(words, first, last)}
    i = first
    while i < last:
        word = words[i]
        if word in ("yes", "yeah", "yep") or (word in ("no", "nope", "nay") and _answers(words, i, first, last)):
            value = "yes" if word[0] == "y" else "no"
            out.append(Mention("yesno", value, *spans[i], i, i + 1))
            i += 1
            continue
        measure = measured.get(i)
        if measure is not None:
            out.append(_measurement(measure, spans))
            i = measure.last
            continue
        slash = word in ("r", "l") and i + 1 < last and words[i + 1] in ("/", ".")  # "r/o", not a side
        found = _walk(TRIE, words, i, last) if not slash else None
        if found is not None:
            entry: Meanings = found[0]  # type: ignore[assignment]
            after = found[1]
            out += [Mention(kind, value, spans[i][0], spans[after - 1][1], i, after) for kind, value in entry]
            if entry[0][0] == "finding":
                out += [Mention("side", words[k], *spans[k], k, k + 1) for k in _sides_within(words, i, after)]
            i = after
            continue
        if word[0].isdigit():
            out.append(Mention("number", word, *spans[i], i, i + 1))
        elif _LEVEL.fullmatch(word):
            after = i + 3 if i + 2 < last and words[i + 1] in ("-", "/") and _LEVEL.fullmatch(words[i + 2]) else i + 1
            value = "-".join(words[i:after:2])
            out.append(Mention("level", value, spans[i][0], spans[after - 1][1], i, after))
            i = after
            continue
        i += 1
    return out


def _sides_within(words: tuple[str, ...], i: int, after: int) -> list[int]:
    """The sides that stand within a phrase and are no part of its name, as they are of "right heart strain"."""
    sides = [k for k in range(i, after) if words[k] in _WITHIN[:3]]
    return sides if sides and not meanings(" ".join(words[i:after])) else []


def _measurement(measure: Measure, spans: tuple[tuple[int, int], ...]) -> Mention:
    start, end = spans[measure.first][0], spans[measure.last - 1][1]
    return Mention("measurement", measure.value, start, end, measure.first, measure.last)


def _answers(words: list[str] | tuple[str, ...], i: int, first: int, last: int) -> bool:
    """Whether a "no" is the answer word rather than a determiner."""
    if i + 1 >= last:
        return i == first or words[i - 1] in ("is", "answer", ":")
    follow = words[i + 1]
    if i == first and not follow[0].isalnum() and follow not in "/(":
        return True
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
            out.append(Cue(_kind(words, str(kind), i, after), i, after))
        i = after
    return out


def _kind(words: list[str], kind: str, i: int, after: int) -> str:
    """The kind of a cue where it stands: what ends a clause speaks of what is before it, what begins one of what
    follows, and what was not seen on an earlier image says nothing of this one."""
    ends = after >= len(words) or not words[after][0].isalnum()
    if words[i] == "should" and after == i + 1 and i > _start(words, i):
        return "neutral"
    if kind == "hedge" and ends and words[after - 1] in TRAILING and i > _start(words, i):
        return "hedge_after"
    if kind == "hedge_after" and i and words[i - 1] in ("there", "it") and not ends:
        return "hedge"  # "There is questionable blunting.", "It is possible that"
    if kind == "hedge_after" and not ends and words[after - 1] in TRAILING and words[after] not in _PLACES:
        return "hedge"  # "The opacity is likely atelectasis."
    if kind in ("negation_after", "negation_seen") and _of_the_past(words, after):
        return "neutral"
    if kind == "negation_seen":
        return "negation_after"
    if kind == "negation_after" and not ends and i == _start(words, i):
        return "negation"  # "Resolved pneumothorax."
    return kind


def _of_the_past(words: list[str], after: int) -> bool:
    """Whether "not seen" goes on with "previously" or "on the prior study"."""
    for word in words[after : after + 5]:
        if word in PAST:
            return True
        if word not in (
            "on",
            "in",
            "at",
            "the",
            "a",
            "any",
            "most",
            "recent",
            "immediate",
            "immediately",
            "her",
            "his",
        ):
            return False
    return False


def _start(words: list[str], i: int) -> int:
    while i > 0 and words[i - 1] not in STOPS:
        i -= 1
    return i


def _labelled(words: list[str], mentions: list[Mention], cues: list[Cue], first: int, last: int) -> list[Cue]:
    """The cues of a sentence with those of "Pneumothorax: none" and "effusion (no)" among them."""
    out = list(cues)
    for m in mentions:
        found = _label(words, m.last, last) if m.kind == "finding" else None
        if found is not None:
            kind, after = found
            out = [c for c in out if not (c.first < after and m.last < c.last)]
            out.append(Cue(kind, m.last + 1, after, m.first))
    return sorted(out, key=lambda c: c.first)


def _label(words: list[str] | tuple[str, ...], i: int, last: int) -> tuple[str, int] | None:
    """The kind of value that stands behind a label that ends before word i, and the word after it."""
    if i >= last or words[i] not in _SEPARATORS:
        return None
    found = _walk(LABEL_VALUES, words, i + 1, last)
    if found is None:
        return None
    kind, after = str(found[0]), found[1]
    closed = after >= last or words[after] in (",", ";", ")", "|", "(", "-") or words[after] in STOPS
    return (kind, after) if closed else None


COPULAS = frozenset("appear look seem to be".split())
"""What may stand between "not" and the state that it denies."""


def label_value(parsed: Parse, m: Mention) -> tuple[int, int] | None:
    """The word range of the value behind a finding that is a label, as "none" in "Pneumothorax: none"."""
    found = _label(parsed.words, m.last, parsed.sentence(m.first)[1])
    return (m.last + 1, found[1]) if found is not None else None


def _assert(
    mentions: list[Mention],
    cues: list[Cue],
    words: list[str],
    spans: tuple[tuple[int, int], ...],
    sentence: tuple[int, int],
    beside: list[Mention],
) -> list[Mention]:
    """The mentions with the status that the sentence's cues give them; a negation outweighs a hedge."""
    scopes = [(cue, *scope(cue, words, sentence, beside)) for cue in cues if cue.kind != "neutral"]
    out = []
    for m in mentions:
        status, at, kind = PRESENT, None, ""
        for cue, first, last in scopes:
            if first <= m.first and m.last <= last and not m.first <= cue.first < m.last:
                apart = any(word not in COPULAS for word in words[cue.last : m.first])
                if m.kind == "normal" and apart and not cue.kind.endswith("after"):
                    continue  # "without effusion, heart within normal limits"; but "does not look enlarged"
                said = ABSENT if cue.kind.startswith("negation") else UNCERTAIN
                if said == status == ABSENT and kind == "negation" and _ended(cue, words):
                    status, kind, at = PRESENT, "", None  # "no evidence that the effusion has resolved"
                    break
                firm = cue.kind in FIRM and (kind not in FIRM or cue.kind == "negation_now_after")
                if status == PRESENT or firm or (status == UNCERTAIN and said == ABSENT and kind not in FIRM):
                    status, kind = said, cue.kind
                    at = spans[cue.first][0], spans[cue.last - 1][1]
        out.append(m if at is None else replace(m, status=status, cue=at, cue_kind=kind))
    return out


def _ended(cue: Cue, words: list[str]) -> bool:
    """Whether a cue says that something is over: "has resolved"."""
    return cue.kind == "negation_after" and any(w in _OVER for w in words[cue.first : cue.last])


def asserted(parsed: Parse, m: Mention, beside: list[Mention], sentence: tuple[int, int]) -> Mention:
    """A mention that the lexicon does not have, with the status that its sentence gives it."""
    cues = [cue for cue in parsed.cues if sentence[0] <= cue.first < sentence[1]]
    words = list(parsed.words)
    cues = _labelled(words, [replace(m, kind="finding")], cues, *sentence)
    [found] = _assert([m], cues, words, parsed.spans, sentence, beside)
    return found
