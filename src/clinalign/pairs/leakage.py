"""Whether images, patients or questions of a test set are among the pairs that a model is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinalign.data.preferences import Preference, read_corpus
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.storage import read_table, sha256

LEARNT = ("align", "train", "")


@dataclass(slots=True)
class TestSet:
    """What must not be trained on: ids, patients, and images (paths as written, with the files they name)."""

    __test__ = False  # no class of tests

    ids: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    images: dict[str, Path] = field(default_factory=dict)


def held_out(examples: Iterable[Example], folder: Path) -> TestSet:
    """The examples that are not for learning (split neither align nor train)."""
    out = TestSet()
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
            examples = read_table(path, Example)
        except UsageError:
            examples = []
        if examples:
            return held_out(examples, path.parent)
    rows = read_corpus(path).rows
    images = {image: path.parent / image for row in rows for image in row.images}
    return TestSet(set(), {row.patient for row in rows if row.patient}, images)


def leaks(rows: Sequence[Preference], test: TestSet) -> dict[str, int]:
    """How many pairs share an image (same path, or same content), a patient or an example with the test set."""
    content = _same_content(rows, test)
    found = {"leaked_images": 0, "leaked_patients": 0, "leaked_examples": 0}
    for row in rows:
        files = [row.folder / image for image in row.images]
        named = any(image in test.images and test.images[image] == row.folder / image for image in row.images)
        unseen = any(image in test.images and not (row.folder / image).is_file() for image in row.images)
        found["leaked_images"] += named or unseen or any(file in content for file in files)
        found["leaked_patients"] += row.patient in test.patients
        found["leaked_examples"] += row.id in test.ids
    return found


def _same_content(rows: Sequence[Preference], test: TestSet) -> set[Path]:
    """Image files of the pairs whose bytes are those of a test image; only files of equal size are read."""
    sizes = {path: path.stat().st_size for path in test.images.values() if path.is_file()}
    mine = {row.folder / image for row in rows for image in row.images}
    own = {path: path.stat().st_size for path in mine if path.is_file()}
    common = set(sizes.values()) & set(own.values())
    digests = {sha256(path) for path, size in sizes.items() if size in common}
    return {path for path, size in own.items() if size in common and sha256(path) in digests}
