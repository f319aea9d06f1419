"""Numbers of a preference corpus: does it differ in medicine or in style?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from clinalign.language.align import blocks, words
from clinalign.records import Pair
from clinalign.tables import Quarantine


def corpus_numbers(pairs: Sequence[Pair], quarantine: Quarantine | None = None) -> dict[str, Any]:
    """The style-gap table and span statistics of a corpus; an empty corpus gives {"pairs": 0}.

    Words are counted without punctuation. `edit_distance_mean` is the word-level edit distance (insertions, deletions
    and replacements) over the longer side's words; on-policy minimal edits are near 0.2, reference-style pairs near 1
    (arXiv 2606.12590). `length_only_accuracy` is the share of pairs whose preferred side the better of the two rules
    "shorter wins" and "longer wins" names, ties counting half: 0.5 means that length tells nothing.
    """
    if not pairs:
        return {"pairs": 0, "gates": _gates(quarantine)}
    lengths = [(_words(p.chosen), _words(p.rejected)) for p in pairs]
    gaps = [chosen - rejected for chosen, rejected in lengths]
    edits = [_distance(p.chosen, p.rejected) for p in pairs]
    shorter = sum(1.0 if gap < 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps)
    return {
        "pairs": len(pairs),
        "already_correct_share": _mean(p.was_correct for p in pairs),
        "chosen_words_mean": _mean(chosen for chosen, _ in lengths),
        "rejected_words_mean": _mean(rejected for _, rejected in lengths),
        "length_diff_mean": _mean(abs(gap) for gap in gaps),
        "length_gap_signed_mean": _mean(gaps),
        "within_two_share": _mean(abs(gap) <= 2 for gap in gaps),
        "edit_distance_mean": _mean(edits),
        "length_only_accuracy": max(shorter, 1.0 - shorter),
        "shorter_wins_share": shorter,
        "negation_gap_mean": _mean(_negations(p.chosen) - _negations(p.rejected) for p in pairs),
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
    said = [sum(_words(text[start:end]) for start, end in spans) for text, spans, _ in sides]
    return {
        "spans_mean": _mean(len(spans) for _, spans, _ in sides),
        "words_mean": _mean(said),
        "share_of_characters": _mean(covered),
        "tokens_mean": _mean(_span_tokens(p) for p in pairs),
        "share_of_tokens": _mean(_span_tokens(p) / max(1, len(p.chosen_token_ids)) for p in pairs),
        "without_span_share": _mean(not spans for _, spans, _ in sides),
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


def _distance(chosen: str, rejected: str) -> float:
    changed = sum(max(_words(chosen[a:b]), _words(rejected[c:d])) for a, b, c, d in blocks(chosen, rejected))
    return changed / max(1, _words(chosen), _words(rejected))


def _words(text: str) -> int:
    return sum(word[0].isalnum() for word in words(text))


def _negations(text: str) -> int:
    return sum(word.lower() in ("no", "not", "without", "absent", "cannot", "neither", "nor") for word in words(text))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _mean(values: Iterable[float]) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else 0.0


def _gates(quarantine: Quarantine | None) -> dict[str, int]:
    rows = quarantine.rows if quarantine is not None else []
    return _counts(row["reason"] for row in rows if row["stage"].partition(":")[0] == "pair")
