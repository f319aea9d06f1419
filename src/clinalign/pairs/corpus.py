"""Numbers of a preference corpus: does it differ in medicine or in style?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from clinalign.pairs.style import count_words, mean, style_gap
from clinalign.records import Pair
from clinalign.storage import Quarantine


def corpus_numbers(pairs: Sequence[Pair], quarantine: Quarantine | None = None) -> dict[str, Any]:
    """The style-gap table and span statistics of a corpus; an empty corpus gives {"pairs": 0}.

    Words are counted without punctuation. `edit_distance_mean` is the word-level edit distance (insertions, deletions
    and replacements) over the longer side's words; on-policy minimal edits are near 0.2, reference-style pairs near 1
    (arXiv 2606.12590). `length_only_accuracy` is the share of pairs whose preferred side the better of the two rules
    "shorter wins" and "longer wins" names, ties counting half: 0.5 means that length tells nothing.
    """
    if not pairs:
        return {"pairs": 0, "gates": _gates(quarantine)}
    gap = style_gap([(p.chosen, p.rejected) for p in pairs])
    shorter = gap["shorter_wins_share"]
    return {
        "pairs": len(pairs),
        "already_correct_share": mean(p.was_correct for p in pairs),
        **gap,
        "length_only_accuracy": max(shorter, 1.0 - shorter),
        "spans": _span_numbers(pairs),
        "edit_kinds": _counts(p.edit_kind for p in pairs),
        "editors": _counts(p.editor for p in pairs),
        "corruptions": _counts(f"{p.corruption}/{p.corruption_area}" for p in pairs),
        "region_sources": _counts(p.region_source for p in pairs),
        "gates": _gates(quarantine),
    }


def _span_numbers(pairs: Sequence[Pair]) -> dict[str, float]:
    """Spans a side, their words, and the share of the text that they cover."""
    sides = [(p.chosen, p.chosen_spans, p.chosen_token_ids) for p in pairs]
    sides += [(p.rejected, p.rejected_spans, p.rejected_token_ids) for p in pairs]
    covered = [sum(end - start for start, end in spans) / max(1, len(text)) for text, spans, _ in sides]
    said = [sum(count_words(text[start:end]) for start, end in spans) for text, spans, _ in sides]
    return {
        "spans_mean": mean(len(spans) for _, spans, _ in sides),
        "words_mean": mean(said),
        "share_of_characters": mean(covered),
        "tokens_mean": mean(_span_tokens(p) for p in pairs),
        "share_of_tokens": mean(_span_tokens(p) / max(1, len(p.chosen_token_ids)) for p in pairs),
        "without_span_share": mean(not spans for _, spans, _ in sides),
    }


def _span_tokens(pair: Pair) -> int:
    """Chosen tokens outside the common beginning and end of the two sides: an upper bound of those in spans."""
    a, b = pair.chosen_token_ids, pair.rejected_token_ids
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    return len(a) - head - tail


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _gates(quarantine: Quarantine | None) -> dict[str, int]:
    rows = quarantine.rows if quarantine is not None else []
    return _counts(row["reason"] for row in rows if row["stage"].partition(":")[0] == "pair")
