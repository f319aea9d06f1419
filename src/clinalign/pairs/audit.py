"""Does a preference corpus teach medicine or style? Measures, thresholds, and a verdict with its reasons.

A measure beyond `warn` is a warning; beyond `fail`, a failure. What a classifier tells counts only where its 95 %
interval, too, lies beyond `warn`, so that a small corpus is not refused by chance. Thresholds: docs/corpora.md.
A corpus leaks where it shares an image, a patient or an example with what must not be trained on.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.data.preferences import Preference, preferences_of, read_corpus
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import read_image
from clinalign.imaging.likeness import Likenesses, Thumbnail, thumbnail
from clinalign.language import claims
from clinalign.language.graph import CONCEPTS
from clinalign.pairs import style
from clinalign.records import Example, Pair
from clinalign.storage import Mapped, by_id, open_table, sha256

ENOUGH = 30
READ_AT_MOST = 2000
"""Pairs whose claims are read: reading is slow."""
CLASSIFIED = 10_000
"""Pairs that the classifiers see of a longer corpus: a share's standard error is half a point at most."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Bounds of one measure: `over` or `under` says on which side of them a value is bad; `says` is the reason."""

    warn: float
    fail: float | None
    says: str
    over: bool = True


RULES: dict[str, Rule] = {
    "length_only": Rule(0.55, 0.65, "length alone names the chosen side; it would teach length"),
    "form_only": Rule(0.60, 0.70, "form alone (length, marks, capitals, function words) names the chosen side"),
    "negation_only": Rule(0.60, 0.70, "negation alone names the chosen side; balance present and absent"),
    "words_only": Rule(0.75, None, "words alone name the chosen side without the image"),
    "length_diff_mean": Rule(1.6, None, "the sides differ in length by many words"),
    "within_two_share": Rule(0.86, None, "few pairs are within two words of each other", over=False),
    "edit_distance_mean": Rule(0.30, None, "the sides share few words: rewrites, not minimal edits"),
    "similarity_median": Rule(0.70, None, "the typical pair shares few words", over=False),
    "same_sides_share": Rule(0.0, 0.05, "chosen and rejected are the same text"),
    "duplicate_share": Rule(0.01, 0.10, "pairs occur more than once"),
    "contradictory_share": Rule(0.0, 0.05, "a text is chosen in one pair and rejected in another of the same question"),
    "test_leaks": Rule(0.0, 0.0, "images, patients or questions of the test set are among the pairs"),
    "unreadable_share": Rule(0.0, 0.10, "rows cannot be read"),
    "one_side_own_share": Rule(0.95, None, "the model's own text is nearly always on the same side"),
    "presence_imbalance": Rule(0.80, None, "where presence differs, the chosen side nearly always says the same"),
}
"""Measure -> its bounds. `fail` None: a warning at most."""

CLASSIFIERS: dict[str, Callable[[Sequence[style.Sides]], Any]] = {
    "length_only": style.length_features,
    "form_only": style.form_features,
    "negation_only": style.negation_features,
    "words_only": style.word_features,
}


def audit_pairs(pairs: Sequence[Pair], examples: Sequence[Example], folder: Path) -> dict[str, Any]:
    """The audit of a run's pairs; the run's own examples of other splits must not be among them."""
    rows = preferences_of(pairs, folder, _patients(examples))
    return audit(rows, test=held_out(examples, folder, compared=True))


def _patients(examples: Sequence[Example]) -> Callable[[str], str]:
    known = by_id(examples)
    return lambda name: example.patient_id if (example := known.get(name)) else ""


def audit_file(target: Path, test: Path | None = None) -> dict[str, Any]:
    """The audit of a run folder or of a preference file of any layout that `read_corpus` knows.

    `test` is a table of examples or another corpus that must not overlap; a run's own pairs are compared with the other
    splits of the examples beside them. The result names its source under "source".
    """
    path = _file_in(target) if target.is_dir() else target
    corpus = read_corpus(path)
    beside = path.parent / "examples.parquet"
    ours = corpus.format == "clinalign" and beside.is_file()
    rows = corpus.rows
    if ours:
        patient = _patients(open_table(beside, Example))
        rows = Mapped(corpus.rows, lambda row: replace(row, patient=patient(row.id)))
    given = test or (beside if ours else None)
    found = audit(
        rows,
        test=read_test_set(given) if given else None,
        unreadable=len(corpus.unreadable),
        layout=corpus.format,
    )
    shown = [{"row": row, "reason": reason} for row, reason in corpus.unreadable[:20]]
    return {"source": str(path), **found, **({"unreadable": shown} if shown else {})}


def _file_in(folder: Path) -> Path:
    """The pairs of a run folder, or the only preference file of another folder (an export, say)."""
    if (folder / "corrupted_pairs.parquet").is_file():
        return folder / "corrupted_pairs.parquet"
    found = [p for p in sorted(folder.iterdir()) if p.suffix in (".parquet", ".jsonl", ".json")]
    found = [p for p in found if p.name != "dataset_info.json"]
    if len(found) != 1:
        raise UsageError(f"{folder}: no corrupted_pairs.parquet and {len(found)} other tables here; name the file")
    return found[0]


def audit(
    rows: Sequence[Preference], *, test: TestSet | None = None, unreadable: int = 0, layout: str = "clinalign"
) -> dict[str, Any]:
    """{"verdict": pass | warn | fail, "reasons": [...], "checks": {measure: {value, verdict, ...}}, "numbers": {...}}.

    `test` is what must not be among the pairs; without it the check of leakage is "not checked", and says so.
    """
    scan = _scan(rows)
    drawn = _spread(scan.differing, CLASSIFIED)
    shown = [rows[n] for n in drawn]
    texts, groups = [(row.chosen, row.rejected) for row in shown], [row.group for row in shown]
    checks: dict[str, dict[str, Any]] = {}
    for name, features in CLASSIFIERS.items():
        accuracy = style.held_out_accuracy(features(texts), groups) if texts else style.Accuracy(0.5, 0.0, 1.0)
        low = accuracy.low if len(texts) >= ENOUGH else 0.0  # a few pairs that all agree have an interval of no width
        checks[name] = _judged(name, accuracy.accuracy, low, interval=[accuracy.low, accuracy.high])
    gap = style.style_gap((row.chosen, row.rejected) for row in rows)
    for name in ("length_diff_mean", "within_two_share", "edit_distance_mean", "similarity_median"):
        checks[name] = _judged(name, gap[name])
    for name, value in _repeats(scan).items():
        checks[name] = _judged(name, value)
    if unreadable:
        checks["unreadable_share"] = _judged("unreadable_share", unreadable / (unreadable + len(rows)))
    presence = _presence([rows[n] for n in _spread(scan.differing, READ_AT_MOST)])
    for name, (share, count) in (("one_side_own_share", _own_side(scan)), ("presence_imbalance", presence)):
        if count >= ENOUGH:
            checks[name] = _judged(name, share)
    found = leaks(rows, test) if test is not None else None
    checks["test_leaks"] = _leak_check(found)
    numbers = gap | _spans(scan) | {"presence_flips": presence[1], "pairs_classified": len(texts)} | (found or {})
    return {
        **_verdict(checks, len(rows)),
        "layout": layout,
        "pairs": len(rows),
        "checks": checks,
        "numbers": numbers,
    }


@dataclass(slots=True)
class _Scan:
    """What one look at every row leaves: where the sides differ, hashes of its texts within their group, whose own text
    is where, and what its spans cover."""

    differing: array[int] = field(default_factory=lambda: array("q"))
    whole: array[int] = field(default_factory=lambda: array("q"))
    chosen: array[int] = field(default_factory=lambda: array("q"))
    rejected: array[int] = field(default_factory=lambda: array("q"))
    own: Counter[str] = field(default_factory=Counter)
    covered: array[float] = field(default_factory=lambda: array("d"))
    without_span: int = 0


def _scan(rows: Sequence[Preference]) -> _Scan:
    scan = _Scan()
    for n, row in enumerate(rows):
        if row.chosen != row.rejected:
            scan.differing.append(n)
        group = row.group
        scan.whole.append(hash((group, row.chosen, row.rejected, row.pair.round if row.pair else 0)))
        scan.chosen.append(hash((group, row.chosen)))
        scan.rejected.append(hash((group, row.rejected)))
        if row.pair is not None and row.pair.own != "none":
            scan.own[row.pair.own] += 1
        for spans, text in zip(row.spans or (), (row.chosen, row.rejected)):
            scan.covered.append(sum(end - start for start, end in spans) / max(1, len(text)))
            scan.without_span += not spans
    return scan


def _spread(places: Sequence[int], most: int) -> Sequence[int]:
    """All places, or `most` of them at most, evenly spread."""
    return places[:: max(1, -(-len(places) // most))]


def _judged(name: str, value: float, low: float | None = None, **more: Any) -> dict[str, Any]:
    """One check. `low` is the lower end of a statistical measure's interval."""
    rule = RULES[name]

    def beyond(bound: float, seen: float) -> bool:
        return seen > bound if rule.over else seen < bound

    certain = low is None or beyond(rule.warn, low)
    failed = rule.fail is not None and beyond(rule.fail, value) and certain
    verdict = "fail" if failed else "warn" if beyond(rule.warn, value) and certain else "pass"
    shown = {key: [round(v, 4) for v in item] for key, item in more.items()}
    return {"value": round(float(value), 4), "verdict": verdict, "warn": rule.warn, "fail": rule.fail, **shown}


def _leak_check(found: dict[str, int] | None) -> dict[str, Any]:
    if found is None:
        return {"value": None, "verdict": "not checked", "warn": 0.0, "fail": 0.0}
    leaked = sum(count for name, count in found.items() if name.startswith("leaked_"))
    return _judged("test_leaks", leaked) | {"unchecked_images": found["unchecked_images"]}


def _verdict(checks: dict[str, dict[str, Any]], pairs: int) -> dict[str, Any]:
    reasons = [
        f"{check['verdict']}: {name} {check['value']:g} ({_bound(name, check['verdict'])}): {RULES[name].says}"
        for verdict in ("fail", "warn")
        for name, check in checks.items()
        if check["verdict"] == verdict
    ]
    if pairs < ENOUGH:
        reasons.append(f"warn: {pairs} {'pair is' if pairs == 1 else 'pairs are'} too few to tell style from medicine")
    worst = next((v for v in ("fail", "warn") if any(r.startswith(v) for r in reasons)), "pass")
    return {"verdict": worst, "reasons": reasons}


def _bound(name: str, verdict: str) -> str:
    rule = RULES[name]
    bound = rule.fail if verdict == "fail" else rule.warn
    return f"at {'most' if rule.over else 'least'} {bound:g}"


def _repeats(scan: _Scan) -> dict[str, float]:
    """Shares of pairs that repeat another, contradict another, or have the same text on both sides."""
    count = len(scan.whole)
    if not count:
        return {"same_sides_share": 0.0, "duplicate_share": 0.0, "contradictory_share": 0.0}
    chosen, rejected, differing = (np.array(hashes) for hashes in (scan.chosen, scan.rejected, scan.differing))
    clashes = np.isin(chosen[differing], rejected) | np.isin(rejected[differing], chosen)
    return {
        "same_sides_share": 1 - len(differing) / count,
        "duplicate_share": (count - len(np.unique(np.array(scan.whole)))) / count,
        "contradictory_share": int(clashes.sum()) / count,
    }


def _own_side(scan: _Scan) -> tuple[float, int]:
    """Share of the commoner side of the model's own text, and how many pairs tell."""
    count = sum(scan.own.values())
    return (max(scan.own.values()) / count, count) if count else (0.0, 0)


def _presence(rows: Sequence[Preference]) -> tuple[float, int]:
    """Where one side says a finding is there and the other denies it: the share of the commoner chosen status."""
    said: Counter[str] = Counter()
    for row in rows:
        one, other = _statuses(row.chosen), _statuses(row.rejected)
        flips = [one[name] for name in one.keys() & other.keys() if {one[name], other[name]} == {"present", "absent"}]
        said.update(flips[:1])
    count = sum(said.values())
    return (max(said.values()) / count, count) if count else (0.0, 0)


def _statuses(text: str) -> dict[str, str]:
    return {claim.finding: claim.status for claim in claims(text) if claim.finding in CONCEPTS}


def _spans(scan: _Scan) -> dict[str, float]:
    """Share of the characters in spans, and of sides without any; nothing where the corpus marks none."""
    if not scan.covered:
        return {}
    sides = len(scan.covered)
    return {
        "span_share_of_characters": style.mean(scan.covered),
        "sides_without_span_share": scan.without_span / sides,
    }


def describe(result: dict[str, Any]) -> str:
    """The result of `audit_file` as lines for a terminal."""
    lines = [f"{result['source']}: {result['pairs']} pairs ({result['layout']})"]
    for name, check in result["checks"].items():
        value = "not checked: give the test set with --test" if check["value"] is None else f"{check['value']:.3f}"
        bounds = f"warn {'>' if RULES[name].over else '<'} {check['warn']:g}"
        bounds += "" if check["fail"] is None else f", fail {'>' if RULES[name].over else '<'} {check['fail']:g}"
        lines.append(f"  {check['verdict']:<12}{name:<22}{value:<10} {bounds}")
        if unchecked := check.get("unchecked_images"):
            lines.append(f"  not checked {unchecked} images: no file there, or one that cannot be read")
    return "\n".join([*lines, *(f"  {reason}" for reason in result["reasons"]), f"verdict: {result['verdict']}"])


LEARNT = ("align", "train", "")


@dataclass(slots=True)
class TestSet:
    """What must not be trained on: ids, patients, and images (paths as written, with the files they name).

    `compared`: an ingest has compared what its images show with those to learn from."""

    __test__ = False  # no class of tests

    ids: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    images: dict[str, Path] = field(default_factory=dict)
    compared: bool = False


def held_out(examples: Iterable[Example], folder: Path, *, compared: bool = False) -> TestSet:
    """The examples that are not for learning (split neither align nor train)."""
    out = TestSet(compared=compared)
    for example in examples:
        if example.split not in LEARNT:
            out.ids.add(example.id)
            out.patients.add(example.patient_id)
            out.images |= {image: folder / image for image in example.images}
    out.patients.discard("")
    return out


def read_test_set(path: Path) -> TestSet:
    """A test set from a table of examples (those of no split to learn from) or from any preference corpus."""
    if path.suffix in (".parquet", ".jsonl"):
        try:
            examples: Sequence[Example] = open_table(path, Example)
        except UsageError:
            examples = []
        if examples:
            return held_out(examples, path.parent)
    rows = read_corpus(path).rows
    images = {image: path.parent / image for row in rows for image in row.images}
    return TestSet(set(), {row.patient for row in rows if row.patient}, images)


def leaks(rows: Sequence[Preference], test: TestSet) -> dict[str, int]:
    """How many pairs share an image (same path, same bytes, or a copy encoded anew or resized), a patient or an example
    with the test set; and how many images of either were not looked at, since they are not there or cannot be read."""
    content = _same_content(rows, test)
    unchecked = 0
    if not test.compared:
        copies, unchecked = _copies({row.folder / image for row in rows for image in row.images} - content, test)
        content |= copies
    found = {"leaked_images": 0, "leaked_patients": 0, "leaked_examples": 0}
    for row in rows:
        files = [row.folder / image for image in row.images]
        named = any(image in test.images and test.images[image] == row.folder / image for image in row.images)
        unseen = any(image in test.images and not (row.folder / image).is_file() for image in row.images)
        found["leaked_images"] += named or unseen or any(file in content for file in files)
        found["leaked_patients"] += row.patient in test.patients
        found["leaked_examples"] += row.id in test.ids
    return found | {"unchecked_images": unchecked}


def _copies(own: set[Path], test: TestSet) -> tuple[set[Path], int]:
    """Those image files that show what a test image shows, and how many files of both sides could not be looked at."""
    known, unchecked, copies = Likenesses(), 0, set()
    for path in sorted(set(test.images.values())):
        small = _thumbnail(path)
        unchecked += small is None
        if small is not None:
            known.add(small, path.name)
    for path in sorted(own):
        small = _thumbnail(path)
        unchecked += small is None
        if small is not None and known.find(small):
            copies.add(path)
    known.close()
    return copies, unchecked


def _thumbnail(path: Path) -> Thumbnail | None:
    try:
        return thumbnail(read_image(path))
    except RowError:
        return None


def _same_content(rows: Sequence[Preference], test: TestSet) -> set[Path]:
    """Image files of the pairs whose bytes are those of a test image; only files of equal size are read."""
    sizes = {path: path.stat().st_size for path in test.images.values() if path.is_file()}
    mine = {row.folder / image for row in rows for image in row.images}
    own = {path: path.stat().st_size for path in mine if path.is_file()}
    common = set(sizes.values()) & set(own.values())
    digests = {sha256(path) for path, size in sizes.items() if size in common}
    return {path for path, size in own.items() if size in common and sha256(path) in digests}
