"""Pairs get their corrupted images and matched controls, drawn at the model's input resolution."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.engine import Each
from clinalign.errors import RowError
from clinalign.imaging.images import content_path, read_image, write_png
from clinalign.imaging.pixels import Mask, Pixels
from clinalign.lesions.corruption import corrupt, realised_sd, seed_of
from clinalign.lesions.options import LesionOptions
from clinalign.lesions.regions import control_region, lesion_regions, native_mask, region_of
from clinalign.lesions.variants import View, views
from clinalign.progress import track
from clinalign.records import Example, Pair, Region, without_finding
from clinalign.storage import Quarantine, Rows, by_id, whole_lines, write_text

FOLDER = "corrupted"
INDEX = f"{FOLDER}/index.jsonl"
WHOLE = ("crop", "black")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one (images, region, kind) became; paths are relative to the run folder."""

    corrupted: tuple[str, ...] | None
    control: tuple[str, ...] | None
    region: Region | None
    corruption: str
    area: str
    sigma: float
    seed: int
    ladder: tuple[tuple[str, ...], ...] = ()


UNKNOWN = RowError("example_id", "unknown_example", "the pair's example is not in the table; answer again")
NOTHING = Drawn(None, None, None, "none", "none", 0.0, 0)


def corrupt_pairs(
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    folder: Path,
    vlm: Any,
    options: LesionOptions,
    quarantine: Quarantine,
    segmented: Mapping[str, Region] | None = None,
    index_name: str = INDEX,
    each: Each = map,
) -> Sequence[Pair]:
    """Fills `corrupted_images`, `control_images`, `ladder_images`, `region`, `region_source`, `corruption`,
    `corruption_area`, `sigma` and `seed` of every pair, and writes the images to `folder/corrupted` under names that
    are hashes of their content.

    `index_name` has one row per corrupted image: source image, kind, area, requested and realised SD (the
    latter at the model's input resolution), mean brightness change, the mask and the control's mask as images. A pair
    without images stays uncorrupted; a pair whose image or mask cannot be read is quarantined. `segmented` are regions
    by example that a segmenter found (`segment.py`): they take the place of the data set's first region. `each` has the
    images drawn.
    """
    found = segmented or {}
    examples_by_id = by_id(examples)
    earlier = whole_lines(folder / index_name)[0]
    index: dict[str, dict[str, Any]] = {row["file"]: row for row in earlier if "file" in row}

    def located(pair: Pair) -> Example | None:
        example = examples_by_id.get(pair.example_id)
        region = found.get(pair.example_id)
        return replace(example, regions=[region, *example.regions[1:]]) if example is not None and region else example

    def distinct() -> Iterator[Example]:
        """An example for each image and region, in the order in which the pairs need them."""
        seen = set()
        for example in map(located, pairs):
            if example is not None and (key := _key(example)) not in seen:
                seen.add(key)
                yield example

    drawn = each(partial(_drawn, folder=folder, vlm=vlm, options=options), distinct())
    known: dict[tuple[Any, ...], Drawn | RowError] = {}
    out: Rows[Pair] = Rows()
    for pair in track(pairs, "corrupt"):
        example = located(pair)
        one: Drawn | RowError = UNKNOWN
        if example is not None:
            key = _key(example)
            if key not in known:
                known[key], rows = next(drawn)
                index |= rows
            one = known[key]
        if isinstance(one, RowError):
            quarantine.add("corrupt", id=pair.id, field=one.field, reason=one.reason, detail=one.detail)
            continue
        out.append(_filled(pair, one, "segmenter" if pair.example_id in found else "dataset"))
    if index:
        lines = (json.dumps(index[name], ensure_ascii=False) for name in sorted(index))
        write_text(folder / index_name, "".join(line + "\n" for line in lines))
    return out


def _key(example: Example) -> tuple[Any, ...]:
    region = region_of(example)
    where = (region.mask, tuple(region.box or ())) if region else None
    others = tuple((r.mask or str(r.box), r.image) for r in example.regions)
    return (tuple(example.images), where, tuple(without_finding(example)), others)


def _drawn(
    example: Example, *, folder: Path, vlm: Any, options: LesionOptions
) -> tuple[Drawn | RowError, dict[str, dict[str, Any]]]:
    """What an example's images become, or why they cannot; and the rows of the index."""
    index: dict[str, dict[str, Any]] = {}
    try:
        drawn = _draw(example, folder, vlm, options, index)
        return (_ladder(example, folder, vlm, drawn, options.levels) if options.levels else drawn), index
    except RowError as error:
        return error, index


def _draw(example: Example, folder: Path, vlm: Any, options: LesionOptions, index: dict[str, dict[str, Any]]) -> Drawn:
    if options.kind == "none" or not example.images:
        return NOTHING
    seen = views(example, folder, vlm)
    touched = [number for number, one in enumerate(seen) if one.mask is not None]
    region = lesion_regions(example)[touched[0]] if touched else None
    if options.kind in WHOLE:
        return _whole(example, folder, seen, options.kind, 0.0, region, index)
    if options.area == "image":
        return _whole(example, folder, seen, "noise", options.sigma_image or options.sigma, region, index)
    if region is None:
        if options.fallback == "none":
            return NOTHING
        return _whole(example, folder, seen, "noise", options.sigma_no_region, None, index)
    return _local(example, touched, folder, vlm, seen, options, index)


def _ladder(example: Example, folder: Path, vlm: Any, drawn: Drawn, levels: Sequence[float]) -> Drawn:
    """The images between the image and its corrupted copy: of each pixel's change the given shares."""
    if not drawn.corrupted:
        return drawn
    steps: list[list[str]] = [[] for _ in levels]
    for before, after in zip(example.images, drawn.corrupted, strict=True):
        if before == after:  # an image that the corruption leaves as it is
            for step in steps:
                step.append(before)
            continue
        shown = vlm.input_image(read_image(folder / before)).astype(np.float32)
        gone = vlm.input_image(read_image(folder / after)).astype(np.float32)
        for step, level in zip(steps, levels, strict=True):
            blend = np.rint(shown + level * (gone - shown)).astype(np.uint8)
            step.append(_save(folder, hashlib.sha256(f"{level!r}".encode() + blend.tobytes()).digest(), "level", blend))
    return replace(drawn, ladder=tuple(map(tuple, steps)))


def _local(
    example: Example,
    touched: list[int],
    folder: Path,
    vlm: Any,
    seen: list[View],
    options: LesionOptions,
    index: dict[str, dict[str, Any]],
) -> Drawn:
    """Every image that the lesion crosses, each in its own mask; the others stay as they are."""
    regions = lesion_regions(example)
    exact = all(seen[number].counterfactual is not None for number in touched)
    kind = "inpaint" if options.kind == "counterfactual" and not exact else options.kind
    if kind == "inpaint" and any(_mask(seen[number]).all() for number in touched):
        return _whole(example, folder, seen, "noise", options.sigma_no_region, regions[touched[0]], index)
    sigma = options.sigma if kind == "noise" else 0.0
    files, controls, seeds = list(example.images), list(example.images), []
    for number in touched:
        row, seed = _image(example, number, regions[number], folder, vlm, seen[number], kind, sigma, options)
        control = _control(seen[number], kind, sigma, row, folder) if options.control else None
        index[row["file"]] = row
        files[number], controls[number] = row["file"], control or ""
        seeds.append(seed)
    found = tuple(controls) if all(controls) and options.control else None
    return Drawn(tuple(files), found, regions[touched[0]], kind, "lesion", sigma, _number(seeds[0]))


def _image(
    example: Example,
    number: int,
    region: Region,
    folder: Path,
    vlm: Any,
    one: View,
    kind: str,
    sigma: float,
    options: LesionOptions,
) -> tuple[dict[str, Any], bytes]:
    """The index row and the seed of one image that the lesion crosses; the corrupted image is written."""
    mask = _mask(one)
    seed = seed_of(one.image, mask, kind, sigma)
    native = options.draw_at == "native" and kind != "counterfactual"
    if kind == "counterfactual":
        assert one.counterfactual is not None
        image, seed = one.counterfactual, hashlib.sha256(seed + one.counterfactual.tobytes()).digest()
    elif native:
        image = _native(example.images[number], region, folder, vlm, kind, sigma)
    else:
        image = corrupt(one.image, mask, kind, sigma, seed)
    row = _entry(example.images[number], one.image, image, mask, kind, "lesion", sigma, seed, folder)
    return row | {"draw_at": "native" if native else "input"}, seed


def _mask(one: View) -> Mask:
    assert one.mask is not None
    return one.mask


def _native(name: str, region: Region, folder: Path, vlm: Any, kind: str, sigma: float) -> Pixels:
    """Drawn at the file's resolution and resized with it: the variant whose noise a resize averages away."""
    image = read_image(folder / name)
    mask = native_mask(region, folder, (image.shape[0], image.shape[1]))
    changed = corrupt(image, mask, kind, sigma, seed_of(image, mask, kind, sigma))
    resized: Pixels = vlm.input_image(changed)
    return resized


def _control(seen: View, kind: str, sigma: float, row: dict[str, Any], folder: Path) -> str | None:
    """The same corruption on the matched patch; there is no counterfactual of it, so it is inpainted."""
    mask = control_region(_mask(seen), seen.image, seen.avoid)
    if mask is None:
        return None
    kind = "inpaint" if kind == "counterfactual" else kind
    seed = seed_of(seen.image, mask, kind, sigma)
    image = corrupt(seen.image, mask, kind, sigma, seed)
    row |= {
        "control": _save(folder, seed, f"{kind}-control", image),
        "control_mask": _save(folder, seed, "control-mask", mask),
        "control_realised_sd": round(realised_sd(seen.image, image, mask), 3),
    }
    return str(row["control"])


def _whole(
    example: Example,
    folder: Path,
    seen: list[View],
    kind: str,
    sigma: float,
    region: Region | None,
    index: dict[str, dict[str, Any]],
) -> Drawn:
    """The whole of every image: the ablations, and the fallback where no region is known."""
    files: list[str] = []
    seeds: list[int] = []
    for name, image in zip(example.images, (one.image for one in seen), strict=True):
        everywhere = np.ones(image.shape[:2], dtype=bool)
        seed = seed_of(image, everywhere, kind, sigma)
        changed = corrupt(image, everywhere, kind, sigma, seed)
        row = _entry(name, image, changed, everywhere, kind, "image", sigma, seed, folder)
        index[row["file"]] = row
        files.append(row["file"])
        seeds.append(_number(seed))
    return Drawn(tuple(files), None, region, kind, "image", sigma, seeds[0])


def _entry(
    name: str,
    before: Pixels,
    after: Pixels,
    mask: Mask,
    kind: str,
    area: str,
    sigma: float,
    seed: bytes,
    folder: Path,
) -> dict[str, Any]:
    change = after[mask].astype(np.int32) - before[mask].astype(np.int32)
    return {
        "file": _save(folder, seed, kind, after),
        "image": name,
        "kind": kind,
        "area": area,
        "sigma": sigma,
        "realised_sd": round(realised_sd(before, after, mask), 3),
        "mean_change": round(float(change.mean()), 3),
        "pixels": int(mask.sum()),
        "size": [int(before.shape[1]), int(before.shape[0])],
        "mask": _save(folder, seed, "mask", mask) if area == "lesion" else None,
        "draw_at": "input",
        "seed": seed.hex(),
    }


def _save(folder: Path, seed: bytes, kind: str, array: Any) -> str:
    name = content_path(FOLDER, f"{seed.hex()[:24]}-{kind}")
    write_png(folder / name, array)
    return name


def _number(seed: bytes) -> int:
    """The first 63 bits of a seed, what a signed 64-bit column holds."""
    return int.from_bytes(seed[:8], "big") >> 1


def _filled(pair: Pair, drawn: Drawn, source: str) -> Pair:
    return replace(
        pair,
        corrupted_images=list(drawn.corrupted) if drawn.corrupted else None,
        control_images=list(drawn.control) if drawn.control else None,
        region=drawn.region,
        region_source=source if drawn.region else "none",
        corruption=drawn.corruption,
        corruption_area=drawn.area,
        sigma=drawn.sigma,
        seed=drawn.seed,
        ladder_images=[list(step) for step in drawn.ladder],
    )
