"""A contact sheet of phantoms: normal patients, every finding small and large on both sides, and sampled cases.

`python -m clinalign.data.phantom.sheet docs/images/phantoms.png` writes the picture of docs/phantom.md, and with
`--second docs/images/phantom-2.png` that of docs/phantom-2.md: the ladder in both hospitals, eyes, slices.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.data.phantom import fundus, volume
from clinalign.data.phantom.cases import FIXED_ZONE, KINDS, ZONES, Case, Finding, render, sample_case
from clinalign.data.phantom.scenes import HOSPITALS, RUNGS, Scene, render_scene

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


def second_sheet(patient: int = 10_000_007, zoom: int = 3) -> npt.NDArray[np.uint8]:
    """One RGB picture: a row of rungs for each hospital, two patients' eyes, five slices of a stack."""
    findings = (Finding("nodule", "right", "middle", "large"), Finding("consolidation", "left", "middle", "large"),
                Finding("pleural effusion", "left", "lower", "large"), Finding("cardiomegaly"))  # fmt: skip
    lines = [
        [render_scene(Scene(patient, findings, name, rung)).image for rung in range(len(RUNGS))] for name in HOSPITALS
    ]
    eyes = [fundus.sample_groups(number, side, 0.4) for number in range(3) for side in fundus.EYES]
    lines.append([fundus.draw_fundus(eye, 64).image for eye in eyes[: len(RUNGS)]])
    stack = volume.render_volume(volume.Volume(patient, 12, volume.SolidNodule("left", "middle", "large")))
    lines.append(list(volume.window(stack.hounsfield, *volume.LUNG_WINDOW)[3 : 3 + len(RUNGS)]))
    block = np.ones((zoom, zoom, 1), dtype=np.uint8)
    tiles = [
        [np.kron(t if t.ndim == 3 else np.repeat(t[:, :, None], 3, axis=2), block) for t in line] for line in lines
    ]
    return np.vstack([np.hstack(line) for line in tiles])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sheet to the one path given."""
    parser = argparse.ArgumentParser(description="Write a contact sheet of phantoms.")
    parser.add_argument("path", type=Path, help="the PNG to write")
    parser.add_argument("--second", action="store_true", help="write the sheet of phantom-2")
    options = parser.parse_args(arguments)
    if options.second:
        Image.fromarray(second_sheet()).quantize(96).save(options.path, optimize=True)
        return
    colours = contact_sheet(rows())
    outlined = (colours == OUTLINE).all(axis=2)
    picture = Image.fromarray(np.where(outlined, 64, colours[:, :, 0] // 4).astype(np.uint8), mode="L")
    picture.putpalette([level * 4 for level in range(64) for _ in range(3)] + list(OUTLINE))
    picture.save(options.path, optimize=True)


if __name__ == "__main__":
    main()
