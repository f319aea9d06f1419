"""Images, masks and counterfactuals of an ingest, copied below the run folder as PNG under names that are hashes of
their content, each once however many rows show it."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.data import cells
from clinalign.data.index import IngestIndex
from clinalign.data.row import Row
from clinalign.errors import RowError
from clinalign.imaging.images import (
    content_name,
    content_path,
    decode_image,
    is_dicom,
    read_image,
    read_mask,
    write_png,
)
from clinalign.imaging.limits import MAX_PIXELS, MAX_VOXELS
from clinalign.imaging.pixels import Mask
from clinalign.imaging.series import Series, chosen_slices, is_series, order_shown, read_series
from clinalign.imaging.volumes import (
    Volume,
    check_grid,
    is_volume,
    label_slice,
    read_labels,
    read_volume,
    slice_to_show,
    volume_slice,
)
from clinalign.storage import is_file

VOLUMES_KEPT = 2
IMAGE_NAME = re.compile(r"\.(png|jpe?g|tiff?|bmp|webp|dcm|dicom|nii|nii\.gz|nrrd|nhdr)$", re.IGNORECASE)
"""A cell that ends like this is a file's name; anything else in its place may be a patient's."""


@dataclass(slots=True)
class Stored:
    """An image after it was copied: its name below the folder, its size, and what a header gave.

    `overlays` are mask names; `patient` and `identifiers` are raw and never written; `depth` is the slice of `volume`.
    """

    name: str
    shape: tuple[int, int]
    meta: dict[str, Any] = field(default_factory=dict)
    patient: str = ""
    identifiers: list[list[str]] = field(default_factory=list)
    overlays: list[str] = field(default_factory=list)
    depth: int | None = None
    volume: str = ""


@dataclass(slots=True)
class ImageStore:
    """Where images come from and go to. `base` is what a row's paths are relative to; `unsafe` counts DICOM images
    that do not declare themselves free of burned-in text."""

    base: Path
    folder: Path
    window: str
    frame: int
    index: IngestIndex
    max_pixels: int = MAX_PIXELS
    max_voxels: int = MAX_VOXELS
    slices: int = 1
    unsafe: int = 0
    volumes: OrderedDict[tuple[str, ...], Series] = field(default_factory=OrderedDict)

    def images(self, cell: cells.ImageCell, row: Row) -> list[Stored]:
        """What a cell shows: one image, or of a volume, a series or a DICOM file of many frames as many slices as
        `slices` allows, in the order shown."""
        if self.slices == 1 or row.frame is not None or not isinstance(cell, str):
            return [self.image(cell, row)]
        source = self._found(cell, "images")
        key = repr((str(source), "slices"))
        if (known := self.index.recall(key)) is None:
            order = self._order(source)
            known = json.dumps([order[n] for n in chosen_slices(len(order), self.slices)])
            self.index.remember(key, known)
        depths = json.loads(known)
        if len(depths) < 2:
            return [self.image(cell, row)]
        found = [self.image(cell, replace(row, frame=depth)) for depth in depths]
        return [replace(one, volume=str(source)) for one in found]

    def _order(self, source: Path) -> list[int]:
        """The slices or frames of a file or folder in the order shown; of a picture the one."""
        if is_volume(source) or source.is_dir():
            return order_shown(self._volume(source))
        if is_dicom(source):
            from clinalign.imaging.dicom import frames_of

            return list(range(frames_of(source)))
        return [0]

    def _stacked(self, cell: str) -> bool:
        """Whether a cell names a volume or the folder of a series."""
        return is_volume(Path(cell)) or is_series(self.base / cell)

    def image(self, cell: cells.ImageCell, row: Row) -> Stored:
        """Reads an image and writes it as PNG, once a file, window, frame and (volumes) mask."""
        window = row.window or self.window
        seen_by = _OF_VOLUME if isinstance(cell, str) and self._stacked(cell) else ("frame",)
        key = repr((_identity(cell, self.base), window, *(getattr(row, name) for name in seen_by)))
        if (known := self.index.recall(key)) is not None:
            values = json.loads(known)
            return Stored(**values | {"shape": tuple(values["shape"])})
        stored = self._read(cell, row, window)
        self.index.remember(key, json.dumps(asdict(stored)))
        return stored

    def _read(self, cell: cells.ImageCell, row: Row, window: str) -> Stored:
        if isinstance(cell, bytes):
            image = decode_image(cell, max_pixels=self.max_pixels)
            return Stored(self.write(image, "images"), (image.shape[0], image.shape[1]))
        source = self._found(cell, "images")
        if is_volume(source) or source.is_dir():
            return self._slice(source, row, window)
        if is_dicom(source):
            return self._dicom(source, window, self.frame if row.frame is None else row.frame)
        image = read_image(source, max_pixels=self.max_pixels)
        return Stored(self.write(image, "images"), (image.shape[0], image.shape[1]))

    def _found(self, name: str, field: str) -> Path:
        """The file of a name, also where table and disk compose its accents differently (macOS takes them apart) or the
        table was written on Windows. Raises `RowError(field, "missing_image" | "missing_mask")`."""
        forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
        for form in (*forms, *(form.replace("\\", "/") for form in forms)):
            if is_file(self.base / form) or (form and field == "images" and is_series(self.base / form)):
                return self.base / form
        what = "image" if field == "images" else field
        path = str(self.base / name) if IMAGE_NAME.search(name) else cells.described(name)
        detail = "no such file; paths are relative to the table's folder, or to data.images"
        raise RowError(field, f"missing_{what}", detail, path=path)

    def _dicom(self, source: Path, window: str, frame: int) -> Stored:
        from clinalign.imaging.dicom import read_dicom

        dicom = read_dicom(source, window=window, frame=frame, max_pixels=self.max_pixels)
        self.unsafe += bool(dicom.meta.get("burned_in_text"))
        overlays = [self.write(overlay, "masks") for overlay in dicom.overlays]
        shape = (dicom.image.shape[0], dicom.image.shape[1])
        name = self.write(dicom.image, "images")
        return Stored(name, shape, dicom.meta, dicom.patient_id, dicom.identifiers, overlays)

    def _slice(self, source: Path, row: Row, window: str) -> Stored:
        series = self._series(source)
        volume, modality = series.volume, row.modality or series.meta.get("modality", "")
        mask = row.mask
        labels = self._labels(self._found(mask, "mask"), source) if mask and is_volume(self.base / mask) else None
        depth = slice_to_show(volume, labels, row.mask_value) if row.frame is None else row.frame
        image, used = volume_slice(volume, depth, window, modality)
        meta = {"slice": depth, "window": [one.as_dict() for one in used], "spacing_mm": list(volume.spacing)}
        shape = (image.shape[0], image.shape[1])
        found = Stored(self.write(image, "images"), shape, series.meta | meta, series.patient_id, series.identifiers)
        found.depth, found.volume = depth, str(source)
        return found

    def _volume(self, path: Path) -> Volume:
        return self._series(path).volume

    def _series(self, path: Path) -> Series:
        """A volume file, or the series of a folder, with what its headers tell."""
        return self._kept((str(path),), lambda: self._read_volume(path))

    def _read_volume(self, path: Path) -> Series:
        if not path.is_dir():
            return Series(read_volume(path, max_voxels=self.max_voxels))
        series = read_series(path, max_voxels=self.max_voxels)
        self.unsafe += bool(series.meta.get("burned_in_text"))
        return series

    def _labels(self, path: Path, of: Path) -> Volume:
        """A mask volume on the grid of an image volume."""
        volume = self._volume(of)
        labels = self._kept((str(path), "mask"), lambda: Series(read_labels(path, max_voxels=self.max_voxels))).volume
        check_grid(labels, volume)
        return labels

    def _kept(self, name: tuple[str, ...], make: Callable[[], Series]) -> Series:
        if name not in self.volumes:
            made = make()
            self.volumes[name] = made
            while len(self.volumes) > VOLUMES_KEPT:
                self.volumes.popitem(last=False)
        self.volumes.move_to_end(name)
        return self.volumes[name]

    def mask(self, cell: str, of: Stored, value: int | None = None, *, optional: bool = False) -> str:
        """A mask of an image's size, written as PNG. `value`: the label that counts in a map of labels.

        A mask volume is taken at the places of its image's voxels. Raises `RowError` for one of another size or grid,
        and for one without a pixel inside unless `optional` ("" then).
        """
        key = repr((str(self.base / cell), value, of.volume, of.depth, "mask"))
        known = self.index.recall(key)
        if known is None:
            path = self._found(cell, "mask")
            if is_volume(path):
                if of.depth is None:
                    raise RowError("mask", "mask_size", "a mask volume belongs to an image volume; give a 2-D mask")
                mask = label_slice(self._labels(path, Path(of.volume)), of.depth, value)
            else:
                mask = read_mask(path, value, max_pixels=self.max_pixels)
            inside = self.write(mask, "masks") if mask.any() else ""
            known = json.dumps([inside, *mask.shape])
            self.index.remember(key, known)
        inside, height, width = json.loads(known)
        if (height, width) != tuple(of.shape):
            sizes = f"the mask is {width}x{height}, the image {of.shape[1]}x{of.shape[0]}; resample the mask"
            raise RowError("mask", "mask_size", sizes)
        if not inside and not optional:
            raise RowError("mask", "empty_mask", "no pixel is inside; leave the cell empty where there is no lesion")
        return str(inside)

    def write(self, array: np.ndarray[Any, Any] | Mask, kind: str) -> str:
        """Writes pixels below `images` or `masks` under the name that they have by their content, and gives the name.

        What stands there already is written over: it may have been changed since.
        """
        name = content_path(kind, content_name(array))
        write_png(self.folder / name, array)
        if kind == "images":
            self.index.add_picture(name, np.asarray(array, dtype=np.uint8))
        return name


_OF_VOLUME = ("frame", "mask", "mask_value", "modality")
"""The row's cells that a volume's slice depends on besides its window."""


def _identity(cell: cells.ImageCell, base: Path) -> str:
    return hashlib.sha256(cell).hexdigest() if isinstance(cell, bytes) else str(base / cell)
