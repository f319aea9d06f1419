"""What reports are scored by: findings named rightly, invented and missed, their side and zone, overlap of words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from clinalign.evaluation import statistics as S
from clinalign.evaluation.metrics import patient
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.text import bleu_columns, corpus_bleu, rouge_l
from clinalign.language.claims import claims, coverage
from clinalign.language.graph import CONCEPTS, GENERIC, related
from clinalign.language.parse import PRESENT, UNCERTAIN
from clinalign.language.reports import CLASSES, Fact, compare, facts, label_facts
from clinalign.records import Example

K = len(CLASSES)
PLACES = ("side", "zone")


def report_columns(text: str, example: Example) -> np.ndarray:
    """Columns of one report: hits, inventions and misses of the 14 classes (3 x 14), right and stated sides and zones.

    A class uncertain in the reference counts for nothing; one uncertain in the report is not stated by it.
    """
    said = label_facts(facts(text))
    true = label_facts(facts(example.answer, example.slots))
    out = np.zeros((3, K))
    places = np.zeros((len(PLACES), 2))
    for n, name in enumerate(CLASSES):
        own, reference = said.get(name), true.get(name)
        if reference is not None and reference.status == UNCERTAIN:
            continue
        claimed, there = (
            own is not None and own.status == PRESENT,
            reference is not None and reference.status == PRESENT,
        )
        out[:, n] = claimed and there, claimed and not there, there and not claimed
        if own is None or reference is None or not (claimed and there):
            continue
        for m, (mine, wanted) in enumerate(((own.sides, reference.sides), (own.zones, reference.zones))):
            if wanted:
                places[m] += float(mine == wanted), 1.0
    return np.concatenate([out.ravel(), places.ravel()])


def invented_and_missed(text: str, example: Example) -> tuple[int, int]:
    """Findings (of the whole lexicon, not only the 14 classes) that a report invents, and those it leaves out."""
    reference = facts(example.answer, example.slots)
    own = named(facts(text), (PRESENT,))
    there, maybe = named(reference, (PRESENT,)), named(reference, (PRESENT, UNCERTAIN))
    invented = {f for f in own if not any(related(f, g) for g in maybe)}
    return len(invented), len({f for f in there if not any(related(f, g) for g in own)})


def marked_report(text: str, example: Example) -> tuple[list[tuple[str, str]], list[str]]:
    """A report in pieces, each with what its finding is ("" where none is named): right, invented, denied (it is there)
    or misplaced (another side, zone or size); and the findings that it misses."""
    own, reference = claims(text), facts(example.answer, example.slots)
    errors, omitted = compare(own, reference)
    kinds = {error.claim.start: "misplaced" if error.kind == "slot" else error.kind for error in errors}
    pieces, at = list[tuple[str, str]](), 0
    for claim in sorted(own, key=lambda c: c.start):
        stated = claim.status == PRESENT and claim.finding in CONCEPTS and claim.finding not in GENERIC
        kind = kinds.get(claim.start, "right" if stated and claim.about_now else "")
        if kind and claim.start >= at:
            pieces += [(text[at : claim.start], ""), (text[claim.start : claim.end], kind)]
            at = claim.end
    missed = [f.finding for f in omitted if not any(related(f.finding, e.claim.finding) for e in errors)]
    return [piece for piece in [*pieces, (text[at:], "")] if piece[0]], missed


def named(said: tuple[Fact, ...], statuses: tuple[str, ...]) -> set[str]:
    """Findings of the lexicon that facts of these statuses name; general ones ("abnormality") are none."""
    return {f.finding for f in said if f.status in statuses and f.finding in CONCEPTS and f.finding not in GENERIC}


def report_summary(texts: Mapping[str, str], known: Mapping[str, Example], options: SummaryOptions) -> dict[str, Any]:
    """The summary of one system's reports, `texts` by example id; every number with an interval by patient."""
    names = sorted(texts)
    patients = [patient(known[name]) for name in names]
    columns = np.array([report_columns(texts[name], known[name]) for name in names])
    overlap = np.array([bleu_columns(texts[name], known[name].answer) for name in names])
    wrong = np.array([invented_and_missed(texts[name], known[name]) for name in names], float)

    def ratio(combine: Callable[[np.ndarray], np.ndarray], of: np.ndarray = columns) -> dict[str, Any]:
        return S.ratio_interval(of, patients, combine, level=options.level, share=True).as_dict()

    def mean(values: np.ndarray, kind: S.Kind = "mean") -> dict[str, Any]:
        settings: dict[str, Any] = {"level": options.level, "resamples": options.resamples, "kind": kind}
        return S.mean_interval(values, patients, **settings).as_dict()

    return {
        "n": len(names),
        "micro": {name: ratio(partial(_micro, n=n)) for n, name in enumerate(SCORES)},
        "macro": {name: ratio(partial(_macro, n=n)) for n, name in enumerate(SCORES)},
        "classes": _classes(columns.sum(0)),
        "hallucinated": mean(wrong[:, 0]),
        "missed": mean(wrong[:, 1]),
        **{place: ratio(partial(_share, m=m)) for m, place in enumerate(PLACES)},
        "bleu": ratio(corpus_bleu, overlap),
        "coverage": mean(np.array([coverage(texts[name]) for name in names]), "share"),
        "rouge_l": mean(np.array([rouge_l(texts[name], known[name].answer) for name in names]), "share"),
    }


SCORES = ("precision", "recall", "f1")


def _counts(sums: np.ndarray) -> np.ndarray:
    """[..., 3, 14]: hits, inventions, misses."""
    return sums[..., : 3 * K].reshape(*sums.shape[:-1], 3, K)


def _scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of [..., 3] counts; nan where there is nothing to divide by."""
    hit, invented, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return hit / (hit + invented), hit / (hit + missed), 2 * hit / (2 * hit + invented + missed)


def _micro(sums: np.ndarray, n: int) -> np.ndarray:
    return _scores(_counts(sums).sum(-1))[n]


def _macro(sums: np.ndarray, n: int) -> np.ndarray:
    """Mean over the classes that the references or the reports have; a class never stated has precision 0."""
    counts = np.moveaxis(_counts(sums), -2, -1)
    seen = counts.sum(-1) > 0 if n == 2 else counts[..., 0] + counts[..., 2] > 0
    values = np.where(seen, np.nan_to_num(_scores(counts)[n]), np.nan)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, -1) / seen.sum(-1))


def _share(sums: np.ndarray, m: int) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 3 * K + 2 * m] / sums[..., 3 * K + 2 * m + 1])


def _classes(sums: np.ndarray) -> dict[str, Any]:
    counts = _counts(sums)
    rows: dict[str, Any] = {}
    for n, name in enumerate(CLASSES):
        hit, invented, missed = (int(c) for c in counts[:, n])
        if hit + invented + missed:
            values = (float(v) for v in _scores(counts[:, n]))
            rows[name] = dict(zip(SCORES, values, strict=True)) | {"hit": hit, "invented": invented, "missed": missed}
    return rows
