"""Cues of negation and uncertainty, and the words that end their scope."""

from __future__ import annotations

from dataclasses import dataclass

from clinalign.language.lexicon import END, Node

_SEEN = (
    "seen", "present", "identified", "visible", "visualized", "visualised", "evident", "demonstrated", "appreciated",
    "noted", "found", "detected", "observed", "apparent", "recognised", "recognized", "shown", "discernible", "there",
    "confirmed", "depicted", "detectable", "noticeable", "perceptible", "clearly seen", "definitely seen",
)  # fmt: skip
_NOT = ("not", "isn't", "aren't", "wasn't", "weren't", "never")
_SHOW = ("show", "demonstrate", "reveal", "identify", "detect", "disclose")
_SURELY = ("", "definitely ", "entirely ", "completely ", "fully ", "confidently ", "reliably ", "safely ")
_OUT = ("excluded", "ruled out")
_LOOK = (
    "evaluate", "assess", "look", "check", "screen", "search", "monitor", "evaluation", "assessment", "surveillance",
)  # fmt: skip
_NOT_BE = ("cannot be", "can't be", "can not be", "could not be", "couldn't be", "not be", "not been", "not clearly")

# kind: phrases. "negation" and "hedge" reach forward, "_after" back, "_both" both ways, "neutral" nowhere.
_PHRASES: dict[str, tuple[str, ...]] = {
    "negation": (
        "no", "without", "no evidence of", "no evidence for", "no sign of", "no signs of", "absence of", "negative for",
        "free of", "free from", "lack of", "lacks", "devoid of", "denies", "neither", "nor", "rather than",
        "instead of", "as opposed to", "resolution of", "clearance of", "removal of", "exclude the presence of",
        "ruled out for", "not", "never", "doesn't", "don't", "didn't", "isn't", "aren't", "wasn't", "weren't",
        "cannot", "can't", "couldn't", "hasn't", "haven't", "no longer", "nothing to suggest", "none of",
        "no indication of", "no suggestion of", "no suspicious", "without evidence of", "no findings of", "not any",
        "against", "argues against", "no radiographic evidence of", "excludes", "clear of",
        *(f"{fails} to {show}" for fails in ("fails", "fail", "failed") for show in _SHOW),
    ),
    "negation_after": (
        "absent", "is excluded", "are excluded", "has resolved", "have resolved", "resolved", "ruled out",
        "has cleared", "have cleared", "has disappeared", "have disappeared", "disappeared", "has resorbed",
        "has fully resolved", "has completely resolved", "have completely resolved", "has completely cleared",
        "has completely resorbed", "has since resolved", "has now resolved", "have been removed",
        "has been removed", "no longer seen", "no longer present",
        "no longer visible", "no longer visualized", "no longer evident", "no longer identified", "is lacking",
        *(f"{n} {s}" for n in _NOT for s in _SEEN), *(f"{n} {s}" for n in _NOT_BE for s in _SEEN),
        "not otherwise seen", "not well seen", "is none", "are none", "not present or absent",
    ),
    "hedge": (
        "possible", "possibly", "probable", "probably", "likely", "may", "might", "maybe", "perhaps", "suspected",
        "suspicious for", "suspicion of", "suspicion for", "concerning for", "concern for", "worrisome for",
        "question of", "questionable", "cannot exclude", "can't exclude", "can not exclude", "cannot rule out",
        "can't rule out", "can not rule out", "not exclude", "not rule out", "suggestive of",
        "suggesting", "suggest", "suggests", "equivocal", "could represent", "could reflect", "could be",
        "could indicate", "could be due to", "rule out", "to exclude", "history of", "history is significant for",
        "history significant for", "history includes", "if", "unless", "in the event of", "should a", "should an",
        "whether", "query", "consider", "favor", "favors", "favored", "favour", "unlikely to be",
        "unlikely to represent",
        *(f"{look} for" for look in _LOOK), "uncertain", "indeterminate", "unclear if", "unclear whether",
        "raises the question of",
        "raises concern for", "less likely", "differential includes", "differential diagnosis includes", "apparent",
        "differential considerations include", "differential diagnoses include", "differential is", "either",
        "cannot entirely exclude",
        "cannot completely exclude", "not possible to exclude", "impossible to exclude", "unable to exclude",
        "not possible to rule out", "cannot be certain", "difficult to exclude", "hard to exclude", "presumed",
        "presumably", "borderline", "appears to be possible",
    ),
    "hedge_after": (
        *(f"{be} {surely}{out}" for be in ("cannot be", "can't be", "can not be", "could not be", "couldn't be", "not",
                                           "not be", "not been") for surely in _SURELY for out in _OUT),
        *(f"cannot {surely}be {out}" for surely in _SURELY[1:] for out in _OUT),
        *(f"{must} be {out}" for must in ("must", "should", "needs to", "need to") for out in _OUT),
        "should be considered", "must be considered", "could be considered", "may be considered", "is a possibility",
        "remains a possibility", "is a consideration", "difficult to assess", "difficult to evaluate",
        "is possible", "are possible",
        "is suspected", "are suspected", "is questionable", "is questioned", "is unlikely",
        "are unlikely", "is suggested", "are suggested", "is uncertain", "remains possible",
        "is not certain", "is considered", "is equivocal",
    ),
    "hedge_both": ("versus", "vs"),
    "neutral": (
        "no change in", "no significant change in", "no interval change in", "no significant interval change in",
        "no change", "no significant change", "no interval change", "no significant interval change", "not only",
        "no increase in", "no decrease in", "no improvement in", "no progression of", "no worsening of",
        "no enlargement of", "without change", "without significant change", "without interval change",
        "not changed", "not significantly changed", "not increased", "not decreased", "not improved", "not resolved",
        "not worsened", "not completely resolved", "not fully resolved", "has not resolved", "no doubt",
        "without doubt", "without a doubt", "no question", "not without", "no absence of", "not absent",
        "not free of", "not clear of",
        "not negative for", "cannot be denied", "with or without", "no resolution of", "not cleared", "no longer small",
        "not as", "no need for", "no follow up", "no less", "no more than", "not entirely", "no difficulty",
        "cannot be overlooked", "not lacking", "not to be missed", "no clearance of", "not been removed",
        "nearly resolved",
        "almost resolved", "partially resolved", "mostly resolved", "near complete resolution of",
        "nearly complete resolution of", "partial resolution of", "incomplete resolution of", "nearly cleared",
        "never disappeared", "not disappeared", "no question of",
        "largely resolved", "incompletely resolved", "nearly completely resolved", "almost completely resolved",
        "no significant improvement in", "no definite change in", "no appreciable change in", "consistent with",
        "compatible with", "no substantial change in", "not appreciably changed", "not substantially changed",
        "right or left", "left or right",
    ),
}  # fmt: skip


TRAILING = frozenset(("likely", "possible", "probable", "suspected", "questionable", "exclude"))
"""Hedges that at the end of a clause speak of what stands before them: "an infarct is likely"."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue by its kind and word range."""

    kind: str
    first: int
    last: int


def _trie() -> Node:
    root: Node = {}
    for kind, phrases in _PHRASES.items():
        for phrase in phrases:
            node = root
            for word in phrase.split():
                node = node.setdefault(word, {})  # type: ignore[assignment]
            node.setdefault(END, kind)
    return root


CUES = _trie()
"""Word -> ... -> "" -> kind of cue."""

ENDS_SCOPE = frozenset(
    "but however although though except besides apart aside yet while whereas which ; : because due secondary "
    "explain explains explaining otherwise since nevertheless instead despite".split()
)
"""Words that end a cue's scope."""

ENDS_FORWARD = ENDS_SCOPE | {"now", "today"}
"""Words that end the scope of a cue before them: "history of pneumonia, now with effusions"."""

VERBS = frozenset(
    "is are was were remains remain appears appear shows show demonstrates demonstrate reveals reveal has have had "
    "can cannot could contains contain persists exists lies measures seems looks suggests represents does do".split()
)
"""Finite verbs that make a segment a clause of its own."""

ARTICLES = frozenset(("a", "an", "the", "this", "some"))
