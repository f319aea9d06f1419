"""Phantom patients of the embedded model's own training range, rendered once into arrays."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from model import GRID, IMAGE_SIZE, PATCH

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, VERSION, Case, render, sample_case
from clinalign.progress import track

FIRST_PATIENT = {"train": 3_000_000, "dev": 1_000_000, "test": 2_000_000}
PREVALENCE = 0.33
NO_LABEL = -1
CHUNK = 256


@dataclass(frozen=True)
class Corpus:
    """Cases and their arrays.

    images: uint8 [n, 64, 64]; cover: uint8 [n, 6, 64], the share (0-255) of each patch that a kind's mask covers;
    side, size: int8 [n, 6], index into SIDES and SIZES, -1 where the kind is absent or has none.
    """

    cases: list[Case]
    images: npt.NDArray[np.uint8]
    cover: npt.NDArray[np.uint8]
    side: npt.NDArray[np.int8]
    size: npt.NDArray[np.int8]

    def first(self, count: int) -> "Corpus":
        """The corpus of the first `count` patients."""
        return Corpus(self.cases[:count], *(a[:count] for a in (self.images, self.cover, self.side, self.size)))


def load_corpus(split: str, count: int, cache: Path, workers: int = 2) -> Corpus:
    """The first `count` patients of a split, rendered by `workers` processes or read from `cache`."""
    first = FIRST_PATIENT[split]
    cases = [sample_case(patient, prevalence=PREVALENCE) for patient in range(first, first + count)]
    path = cache / f"{VERSION}-{split}-{count}.npz"
    if not path.exists():
        chunks = [cases[start : start + CHUNK] for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            done = list(track(pool.map(_draw_chunk, chunks), f"render {split}", len(chunks)))
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, images=np.concatenate([d[0] for d in done]), cover=np.concatenate([d[1] for d in done]))
        partial.replace(path)
    with np.load(path) as arrays:
        images, cover = arrays["images"], arrays["cover"]
    return Corpus(cases, images, cover, *labels_of(cases))


def labels_of(cases: list[Case]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """`side` and `size` of a corpus."""
    side = np.array([_labels(case, "side", SIDES) for case in cases], np.int8)
    size = np.array([_labels(case, "size", SIZES) for case in cases], np.int8)
    return side, size


def _draw_chunk(cases: list[Case]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images = np.zeros((len(cases), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    cover = np.zeros((len(cases), len(KINDS), GRID * GRID), np.uint8)
    for row, case in enumerate(cases):
        drawn = render(case, IMAGE_SIZE)
        images[row] = drawn.image
        for finding, mask in zip(case.findings, drawn.masks, strict=True):
            share = mask.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3))
            cover[row, KINDS.index(finding.kind)] = np.round(255 * share).reshape(-1)
    return images, cover


def _labels(case: Case, slot: str, values: tuple[str, ...]) -> list[int]:
    found = {finding.kind: getattr(finding, slot) for finding in case.findings}
    return [values.index(found[kind]) if found.get(kind) else NO_LABEL for kind in KINDS]
