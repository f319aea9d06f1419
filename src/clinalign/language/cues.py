"""Cues of negation and uncertainty, and the words that end their scope."""

from __future__ import annotations

from dataclasses import dataclass

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
