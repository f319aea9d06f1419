"""A contact sheet of phantoms: normal patients, every finding small and large on both sides, and sampled cases.

`python -m clinalign.data.phantom.sheet docs/images/phantoms.png` writes the picture of docs/phantom.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.data.phantom.cases import FIXED_ZONE, KINDS, ZONES, Case, Finding, render, sample_case

OUTLINE = (255, 70, 60)
COLUMNS = (("left", "small"), ("right", "small"), ("left", "large"), ("right", "large"))


def rows(columns: int = 4) -> list[list[Case]]:
    """The sheet's cases: a row of normal patients, one row a kind, a row of sampled cases with several findings."""
    sheet = [[Case(patient) for patient in range(columns)]]
    for kind in KINDS:
        made = []
        for number, (side, size) in enumerate(COLUMNS[:columns]):
            zone = FIXED_ZONE.get(kind, ZONES[(number + 1) % 3])
            finding = Finding(kind) if kind == "cardiomegaly" else Finding(kind, side, zone, size)
            made.append(Case(11 + number, (finding,)))
        sheet.append(made)
    return [*sheet, [sample_case(patient, prevalence=0.6) for patient in range(50, 50 + columns)]]


def contact_sheet(sheet: Sequence[Sequence[Case]], px: int = 64, zoom: int = 3) -> npt.NDArray[np.uint8]:
    """One RGB picture: each case enlarged `zoom` times, plain beside outlined."""
    lines = []
    for cases in sheet:
        tiles = [tile for case in cases for tile in (_tile(case, px, zoom, False), _tile(case, px, zoom, True))]
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


def _tile(case: Case, px: int, zoom: int, outlined: bool) -> npt.NDArray[np.uint8]:
    drawn = render(case, px)
    block = np.ones((zoom, zoom), dtype=np.uint8)
    tile = np.repeat(np.kron(drawn.image, block)[:, :, None], 3, axis=2)
    for mask in drawn.masks if outlined else ():
        wide = np.pad(np.kron(mask, block).astype(bool), 1)
        inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
        tile[wide[1:-1, 1:-1] & ~inner] = OUTLINE
    return tile


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sheet to the one path given."""
    parser = argparse.ArgumentParser(description="Write a contact sheet of phantoms.")
    parser.add_argument("path", type=Path, help="the PNG to write")
    colours = contact_sheet(rows())
    outlined = (colours == OUTLINE).all(axis=2)
    picture = Image.fromarray(np.where(outlined, 64, colours[:, :, 0] // 4).astype(np.uint8), mode="L")
    picture.putpalette([level * 4 for level in range(64) for _ in range(3)] + list(OUTLINE))
    picture.save(parser.parse_args(arguments).path, optimize=True)


if __name__ == "__main__":
    main()
