"""What is said of a finding over time: new, unchanged, increased, decreased, resolved."""

from __future__ import annotations

from clinalign.language.cues import ENDS_SCOPE
from clinalign.language.parse import ABSENT, Mention, Parse

CHANGES = {
    "new": "new newly developed developing development appeared recurrent",
    "unchanged": "unchanged stable persistent persists persist again redemonstrated stably constant same",
    "increased": "increase increased increasing enlarging worsened worsening larger progressed progression "
    "progressive worse grown",
    "decreased": "decrease decreased decreasing smaller improved improving improvement resolving "
    "diminished reduced regressed",
    "resolved": "resolved cleared resolution disappeared gone resorbed healed",
}
"""Temporality -> words that say so."""

CHANGE_OF = {word: change for change, words in CHANGES.items() for word in words.split()}
"""Word -> temporality."""

_REACH = 8


def temporality(parsed: Parse, m: Mention, sentence: tuple[int, int]) -> str:
    """The change nearest to a finding in its own clause, or "". A finding denied with a word of ending is resolved."""
    first, last = sentence
    if m.status == ABSENT and m.cue is not None:
        cue = parsed.text[m.cue[0] : m.cue[1]].lower()
        ended = any(CHANGE_OF.get(word) == "resolved" for word in cue.split()) or "no longer" in cue or "remov" in cue
        return "resolved" if ended else ""
    for step in range(1, _REACH):
        for i in (m.first - step, m.last + step - 1):
            if first <= i < last and parsed.words[i] in CHANGE_OF and not _apart(parsed, i, m):
                change = CHANGE_OF[parsed.words[i]]
                denied = i > first and parsed.words[i - 1] in ("no", "not", "without")
                return "unchanged" if denied and change != "new" else change
    return "unchanged" if "no" in parsed.words[max(first, m.first - 6) : m.first] and m.status != ABSENT else ""


def _apart(parsed: Parse, i: int, m: Mention) -> bool:
    low, high = (i, m.first) if i < m.first else (m.last, i)
    return any(word in ENDS_SCOPE or word in (",", "and") for word in parsed.words[low:high])
