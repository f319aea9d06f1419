"""Findings that the concept graph does not know, as claims by their own words; and how much of a text is understood."""

from __future__ import annotations

from functools import lru_cache

from clinalign.language.claims import Claim
from clinalign.language.graph import DATA
from clinalign.language.lexicon import singular
from clinalign.language.parse import Mention, Parse, asserted, parse

_OPENS = frozenset(
    "no without shows show showing reveals reveal demonstrates demonstrate demonstrating with for of is are was were "
    "possible probable likely suspected and or , : there a an the represents suggests".split()
)
_SEEN = frozenset("is are was were seen noted present identified visible evident , and or in of with on at".split())
_LONGEST = 4
_SHORT_ANSWER = 5


@lru_cache(maxsize=1)
def general() -> frozenset[str]:
    """Words of general English and of the frame of a report, which are no clinical words."""
    return frozenset((DATA / "general.txt").read_text(encoding="utf-8").split())


def unlisted(text: str) -> list[Claim]:
    """Claims of findings outside the concept graph: noun phrases of clinical words in the place of a finding."""
    parsed = parse(text)
    taken = _covered(parsed)
    out = []
    for (first, last), section in zip(parsed.sentences, parsed.sections):
        i = first
        while i < last:
            after = _phrase_end(parsed, i, last, taken)
            if after == i:
                i += 1
                continue
            if _stands_for_a_finding(parsed, i, after, first, last):
                out.append(_claim(parsed, i, after, (first, last), section))
            i = after
    return out


def _covered(parsed: Parse) -> frozenset[int]:
    covered = {i for m in parsed.mentions for i in range(m.first, m.last)}
    return frozenset(covered | {i for cue in parsed.cues for i in range(cue.first, cue.last)})


def _clinical(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and word not in general() and singular(word) not in general()


def _phrase_end(parsed: Parse, i: int, last: int, taken: frozenset[int]) -> int:
    after = i
    while after < last and after - i < _LONGEST and after not in taken and _clinical(parsed.words[after]):
        after += 1
    return after


def _stands_for_a_finding(parsed: Parse, i: int, after: int, first: int, last: int) -> bool:
    """Whether a phrase is what a sentence speaks of: alone, after "no" or "shows", or before "is seen"."""
    if parsed.words[after - 1].endswith(("ly", "ed", "ing")):
        return False
    if last - first <= _SHORT_ANSWER:
        return True
    opens = i == first or parsed.words[i - 1] in _OPENS or any(m.last == i for m in parsed.mentions)
    return opens and (after >= last or parsed.words[after] in _SEEN)


def _claim(parsed: Parse, i: int, after: int, sentence: tuple[int, int], section: str) -> Claim:
    name = " ".join(singular(word) for word in parsed.words[i:after])
    bare = Mention("unlisted", name, parsed.spans[i][0], parsed.spans[after - 1][1], i, after)
    mine = [m for m in parsed.mentions if sentence[0] <= m.first < sentence[1]]
    m = asserted(parsed, bare, mine, sentence)
    sides = tuple(s for s in mine if s.kind == "side")
    span = (parsed.spans[sentence[0]][0], parsed.spans[sentence[1] - 1][1])
    slots = {"side": sides} if sides else {}
    return Claim(name, m.status, m.start, m.end, m.cue, span, m, slots, section=section)


def coverage(text: str) -> float:
    """Share of the clinical words of a text that the lexicon understands; 1.0 of a text without any."""
    parsed = parse(text)
    taken = _covered(parsed)
    known = sum(parsed.words[i].isalpha() and parsed.words[i] not in general() for i in taken)
    unknown = sum(_clinical(word) for i, word in enumerate(parsed.words) if i not in taken)
    return known / (known + unknown) if known + unknown else 1.0
